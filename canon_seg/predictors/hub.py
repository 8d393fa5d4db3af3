"""Publish a canonicalizer on the Hugging Face Hub, or in a folder of the same form, and load it.

Needs the extra ``hub``: huggingface_hub, safetensors and Jinja2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, PyTorchModelHubMixin

from canon_seg.config.assets import resolve_asset
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.scorer import Scorer
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.backbone_weights import is_pose_network, load_pose_network
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.networks.weights import load_canonicalizer

EQUIVARIANT, BACKBONE = "equivariant", "backbone"

NOT_STATED = "Not stated. Whoever publishes it says it by `model_card_kwargs`."

_CARD = """---
{{ card_data }}
---

# Canonicalizer: which way is up

Finds the pose of a photograph, one of four quarter turns, with its probability. Behind it any
frozen segmenter or detector gives the same masks and boxes, turned, for a photograph in any of the
four, to the last bit. It is a model of the Python package canon_seg.

    import canon_seg

    canonicalizer = canon_seg.HubCanonicalizer.from_pretrained("{{ repo_id }}")
    predictor = canon_seg.CanonicalSamPredictor(sam, canonicalizer)

## Model

| | |
|---|---|
| network | {{ network }} |
| parameters | {{ parameters }} |
| input | the shorter side, or the side of the square, of {{ input_size }} px, RGB |
| output | the probability of each of {{ group }}'s elements |
| looks at an image | {{ looks }} |

Poses are equivariant whatever the network is: it is shown the representative of all turns of an
image, which is the same for each of them.

## Training

{{ training }}

## Figures

{{ figures }}

## Limits

Photographs without an up, such as those taken straight downwards, close-ups and patterns, have no
pose: look at the probability, or set `UNCERTAIN`. Angles between quarter turns are left as they
are.
"""


class HubCanonicalizer(  # type: ignore[call-arg] # the mixin's, of which mypy may know nothing
    GroupCanonicalizer,
    PyTorchModelHubMixin,
    library_name="canon_seg",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=["canonicalization", "equivariance", "image-segmentation", "orientation"],
    model_card_template=_CARD,
):
    """Be a canonicalizer that can be published, by `save_pretrained` and `push_to_hub`.

        HubCanonicalizer.from_file("output/canonicalizer.pth").save_pretrained("my-canonicalizer")
        canonicalizer = HubCanonicalizer.from_pretrained("my-canonicalizer")

    A folder holds ``config.json`` (the arguments below), ``model.safetensors`` and a model card,
    ``README.md``. All is the mixin's of huggingface_hub; weights of another network are refused.

    Args:
        network: what it takes to build the network, as plain values: ``kind`` "equivariant" with
            the attributes of :class:`canon_seg.networks.equivariant.NetworkSpec`, or "backbone"
            with those of :class:`canon_seg.networks.backbone.BackboneSpec`.
        input_size: pixels, of the scorer, see :mod:`canon_seg.networks.scorer` and
            :mod:`canon_seg.networks.backbone_scorer`.
        temperatures: of a backbone, by the number of passes.
        passes: turns of an image that a backbone looks at, 0 for all or 1.
        image_format: "RGB" or "BGR", channel order of the images that will be given.
        uncertain: ``policy``, ``below`` and ``vote_poses`` of
            :class:`canon_seg.core.pose.UncertainPoses`.

    Raises:
        InputError: for a network that cannot be built.
    """

    def __init__(
        self,
        network: dict,
        input_size: int,
        temperatures: "dict | None" = None,
        passes: int = 0,
        image_format: str = "RGB",
        uncertain: "dict | None" = None,
    ) -> None:
        scorer = _build_scorer(network, input_size, temperatures, passes, image_format)
        super().__init__(scorer, uncertain=UncertainPoses(**(uncertain or {})))

    @classmethod
    def from_file(cls, path: str) -> "HubCanonicalizer":
        """Load a weights file that ``canon-seg-train`` wrote, or one of the package.

        Args:
            path: of the file; "canon_seg://canonicalizer_pretrained.pth" and the like for those of
                the package.

        Returns:
            the canonicalizer in eval mode, on the CPU.

        Raises:
            InputError: naming the file, if it is missing, damaged or of another kind.
        """
        path = resolve_asset(path)
        if is_pose_network(path):
            backbone, input_size, temperatures = load_pose_network(path)
            new = cls(
                network={"kind": BACKBONE, "backbone": backbone.spec.backbone},
                input_size=input_size,
                temperatures={str(passes): value for passes, value in temperatures.items()},
            )
            state = backbone.state_dict()
        else:
            plain, input_size = load_canonicalizer(path)
            kind = {"kind": EQUIVARIANT, **plain.spec.to_dict()}
            new, state = cls(network=kind, input_size=input_size), plain.state_dict()
        cast(Any, new.scorer).network.load_state_dict(state)
        return new.eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Fill the model card with what is known of the model.

        Args:
            *args: the mixin's.
            **kwargs: ``training`` and ``figures``: Markdown that says what the network was trained
                on, and what was measured; ``repo_id``. These are ``model_card_kwargs`` of
                ``save_pretrained`` and ``push_to_hub``.
        """
        scorer = cast(Any, self.scorer)
        spec = scorer.network.spec
        is_backbone = isinstance(scorer, BackboneScorer)
        count = sum(value.numel() for value in scorer.network.parameters())
        known = {
            "repo_id": "THIS_REPOSITORY",
            "network": f"`{spec.backbone}` of timm" if is_backbone else f"`{spec}`",
            "parameters": f"{count:,}",
            "input_size": scorer.input_size,
            "group": scorer.group.name,
            "looks": "once" if not is_backbone or scorer.passes else "in all four turns",
            "training": NOT_STATED,
            "figures": NOT_STATED,
        }
        return super().generate_model_card(*args, **{**known, **kwargs})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: "str | Path", **options: Any
    ) -> "HubCanonicalizer":
        """Load a canonicalizer from a folder or from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: folder, or "OWNER/NAME" of a repository.
            **options: the mixin's.

        Raises:
            InputError: naming the folder or repository.
        """
        place = Path(pretrained_model_name_or_path)
        if not place.is_dir() and (place.is_absolute() or len(place.parts) > 2):
            raise InputError(
                f"there is no folder {place}; give one that save_pretrained wrote, or OWNER/NAME "
                "of a repository on the Hugging Face Hub"
            )
        loaded = super().from_pretrained(pretrained_model_name_or_path, **options)
        return cast(HubCanonicalizer, loaded)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> "HubCanonicalizer":
        """Load as the mixin does, but refuse weights that do not fit, instead of leaving them out.

        Raises:
            InputError: naming the folder or repository.
        """
        if "network" not in kwargs or "input_size" not in kwargs:
            raise InputError(
                f"{model_id}: its config.json describes no canonicalizer of canon_seg; give a "
                "folder that save_pretrained wrote, or a repository that push_to_hub made"
            )
        try:
            model: HubCanonicalizer = super()._from_pretrained(
                model_id=model_id, **{**kwargs, "strict": True}
            )
        except FileNotFoundError as error:
            raise InputError(
                f"{model_id}: has no model.safetensors; save the model again"
            ) from error
        except RuntimeError as error:
            raise InputError(
                f"{model_id}: the weights do not fit config.json ({error}); save the model again"
            ) from error
        return model


def _build_scorer(
    network: "Mapping[str, Any]",
    input_size: int,
    temperatures: "Mapping[Any, float] | None",
    passes: int,
    image_format: str,
) -> Scorer:
    kind = network.get("kind")
    try:
        if kind == BACKBONE:
            return BackboneScorer(
                PoseNetwork(BackboneSpec(network["backbone"])),
                input_size=input_size,
                image_format=image_format,
                passes=passes,
                temperatures={int(k): float(v) for k, v in (temperatures or {}).items()},
            )
        if kind == EQUIVARIANT:
            plain = build_plain_network(NetworkSpec.from_dict(dict(network)))
            return NetworkScorer(plain, input_size=input_size, image_format=image_format)
    except (KeyError, TypeError) as error:
        raise InputError(f"network: {dict(network)} is incomplete or wrong ({error!r})") from error
    raise InputError(f"network: kind is {kind!r}; known: {EQUIVARIANT}, {BACKBONE}")
