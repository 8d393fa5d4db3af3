"""Make detectron2's checkpointer safe to read with and safe to be killed while writing."""

import os

from canon_seg.config.assets import resolve_asset
from canon_seg.d2.capabilities import capabilities
from canon_seg.io.checkpoint import (
    DOWNLOAD_ERRORS,
    check_fit,
    check_is_file,
    load_pickle_file,
    load_torch_file,
    not_fetched,
    weights_in,
)
from canon_seg.io.files import save_torch, write_text

from detectron2.checkpoint import DetectionCheckpointer


class SafeCheckpointer(DetectionCheckpointer):
    """Read detectron2's ``.pth`` and ``.pkl`` without running code in them, and insist on a fit.

    A file whose entries do not fit the model is an :class:`InputError`; only a backbone that comes
    under foreign names (the zoo's ImageNet files) may leave the rest of the model as it is. A
    model that declares a ``checkpoint_module`` (see :mod:`canon_seg.d2.capabilities`) reads files
    too that hold this submodule alone.

    Args:
        model, save_dir, checkpointables: as detectron2's.
        key: config key or option that paths come from, for messages.
    """

    def __init__(self, model, save_dir="", *, key="MODEL.WEIGHTS", **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.key = key

    def save(self, name, **kwargs):
        """Write ``save_dir/name.pth`` whole or not at all, and then point to it.

        Raises:
            InputError: if the folder can't be created, or the file in it not written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
        data.update(kwargs)
        basename = f"{name}.pth"
        save_torch(os.path.join(self.save_dir, basename), data)
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename):
        """Name the newest file in ``save_dir/last_checkpoint``."""
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)

    def load(self, path, *args, **kwargs):
        """Load as detectron2 does; paths of its model zoo are fetched where they can be.

        Raises:
            InputError: naming the file and the key, if it is missing, damaged, would run code, or
                belongs to another model.
        """
        if path:
            path = resolve_asset(os.fspath(path))
            try:
                path = self.path_manager.get_local_path(path)
            except DOWNLOAD_ERRORS as error:
                raise not_fetched(path, self.key, error) from error
            check_is_file(path, self.key)
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename):
        self.path = filename
        is_pickle = filename.endswith(".pkl")
        contents = (load_pickle_file if is_pickle else load_torch_file)(filename, self.key)
        if isinstance(contents, dict) and "model" in contents:
            checkpoint = contents
        elif is_pickle and isinstance(contents, dict):
            # Caffe2's: names are found by likeness, and Detectron's own come with momenta.
            blobs = contents.get("blobs", contents)
            model = {k: v for k, v in blobs.items() if not str(k).endswith("_momentum")}
            checkpoint = {"model": model, "__author__": "Caffe2", "matching_heuristics": True}
        else:
            checkpoint = {"model": contents}
        weights = weights_in(checkpoint, filename, self.key)
        module = capabilities(self.model).checkpoint_module
        if module and not weights.keys().isdisjoint(self.model.get_submodule(module).state_dict()):
            weights = {f"{module}.{name}": value for name, value in weights.items()}
        checkpoint["model"] = weights
        return checkpoint

    def _load_model(self, checkpoint):
        has_foreign_names = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        parameters = {name for name, _ in self.model.named_parameters()}
        if has_foreign_names and not parameters <= set(incompatible.missing_keys):
            missing = unknown = ()
        else:
            missing = incompatible.missing_keys
            unknown = [
                name
                for name in incompatible.unexpected_keys
                if name.rpartition(".")[2] not in ("pixel_mean", "pixel_std")
            ]
        check_fit(
            self.path,
            self.key,
            missing=missing,
            unknown=unknown,
            shapes=incompatible.incorrect_shapes,
        )
        return incompatible
