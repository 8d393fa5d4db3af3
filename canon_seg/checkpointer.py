"""detectron2's checkpointer, made safe to read with and safe to be killed while writing."""

import os

import torch

from canon_seg import compat  # noqa: F401
from canon_seg.checkpoint import load_pickle_file, load_torch_file
from canon_seg.errors import InputError
from canon_seg.files import write_atomically, write_text
from detectron2.checkpoint import DetectionCheckpointer


class SafeCheckpointer(DetectionCheckpointer):
    """Reads the files that detectron2 reads, without running code in them, and insists on a fit.

    A file whose entries do not fit the model is an :class:`InputError`; only a backbone that comes
    under foreign names (the zoo's ImageNet files) may leave the rest of the model as it is.

    Args:
        model, save_dir, checkpointables: as detectron2's.
        key: config key or option that paths come from, for messages.
    """

    def __init__(self, model, save_dir="", *, key="MODEL.WEIGHTS", **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.key = key

    def save(self, name, **kwargs):
        """Write ``save_dir/name.pth`` whole or not at all, and then point to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
        data.update(kwargs)
        basename = f"{name}.pth"
        with write_atomically(os.path.join(self.save_dir, basename)) as temporary:
            torch.save(data, temporary)
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename):
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)

    def _load_file(self, filename):
        self.path = filename
        if not filename.endswith(".pkl"):
            contents = load_torch_file(filename, self.key)
            self._check_dict(contents)
            return contents if "model" in contents else {"model": contents}
        contents = load_pickle_file(filename, self.key)
        self._check_dict(contents)
        if "model" in contents and "__author__" in contents:
            return contents
        contents = contents.get("blobs", contents)
        model = {key: value for key, value in contents.items() if not key.endswith("_momentum")}
        return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}

    def _check_dict(self, contents):
        if not isinstance(contents, dict):
            raise InputError(
                f"{self.path} ({self.key}) holds no weights but a {type(contents).__name__}"
            )

    def _load_model(self, checkpoint):
        foreign_names = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        problems = [
            f"{name} has shape {tuple(theirs)}, the model {tuple(ours)}"
            for name, theirs, ours in incompatible.incorrect_shapes
        ]
        if not foreign_names:
            problems += [f"{name} is missing" for name in incompatible.missing_keys]
            problems += [
                f"{name} is unknown" for name in incompatible.unexpected_keys
                if name.rpartition(".")[2] not in ("pixel_mean", "pixel_std")
            ]
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise InputError(
                f"{self.path} ({self.key}) is a checkpoint of another architecture: "
                f"{'; '.join(problems[:3])}{more}. Give the file that belongs to this config, or "
                "change the config's model"
            )
        return incompatible
