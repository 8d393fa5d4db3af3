"""SAM 2 and SAM 3 for videos and for text, of transformers' own classes, small and random."""

import torch
from optional import need

SIDE = 112  # of the square images that the models see, in pixels
SIZE = {"height": SIDE, "width": SIDE}

_HIERA = {
    "model_type": "sam2_vision_model",
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [3],
        "initializer_range": 0.1,
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 128,
    "initializer_range": 0.1,
}
_VIT = {
    "model_type": "sam3_vision_model",
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "pretrain_image_size": 56,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1],
        "initializer_range": 0.1,
    },
    "fpn_hidden_size": 128,
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "initializer_range": 0.1,
}
_TRACKER = {
    "mask_decoder_config": {
        "hidden_size": 128,
        "mlp_dim": 32,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    },
    "num_maskmem": 3,
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [8, 8],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,  # no other works: it is a constant of their attention
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32,
    "memory_fuser_num_layers": 1,
    "initializer_range": 0.1,
}
_DETR = {"hidden_size": 128, "num_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
_FINDER = {
    "vision_config": _VIT,
    "text_config": {
        "model_type": "clip_text_model",
        "vocab_size": 8,
        "hidden_size": 32,
        "intermediate_size": 32,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "geometry_encoder_config": _DETR,
    "detr_encoder_config": _DETR,
    "detr_decoder_config": {**_DETR, "num_queries": 3},
    "mask_decoder_config": {
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_upsampling_stages": 2,
    },
    "initializer_range": 0.1,
}


def tracker(version):
    """A model and processor of "Sam2Video" or "Sam3TrackerVideo": clicks, boxes and masks."""
    transformers = need("transformers")
    torch.manual_seed(0)
    side, vision = (128, _HIERA) if version == "Sam2Video" else (SIDE, _VIT)
    config = getattr(transformers, f"{version}Config")(vision_config=vision, **_prompted(side))
    model = getattr(transformers, f"{version}Model")(config)
    size = {"height": side, "width": side}
    name = "Sam2ImageProcessor" if version == "Sam2Video" else "Sam3ImageProcessor"
    processor = getattr(transformers, f"{version}Processor")(
        getattr(transformers, name)(size=size),
        transformers.Sam2VideoVideoProcessor(size=size),
        target_size=side,
    )
    return _seeing(model).eval(), processor


def finder():
    """A `Sam3Model`, which finds in an image what a text names, and its processor."""
    transformers = need("transformers")
    torch.manual_seed(0)
    model = transformers.Sam3Model(transformers.Sam3Config(**_FINDER)).eval()
    images = transformers.Sam3ImageProcessor(size=SIZE)
    return model, transformers.Sam3Processor(images, _tokenizer(), target_size=SIDE)


def video_finder():
    """A `Sam3VideoModel`, which finds and tracks what a text names, and its processor."""
    transformers = need("transformers")
    torch.manual_seed(0)
    config = transformers.Sam3VideoConfig(
        detector_config={"model_type": "sam3", **_FINDER},
        tracker_config={
            "model_type": "sam3_tracker_video",
            "vision_config": _VIT,
            **_prompted(SIDE),
        },
        low_res_mask_size=32,
        score_threshold_detection=0.0,
        new_det_thresh=0.0,
        hotstart_delay=0,
        hotstart_unmatch_thresh=0,
        hotstart_dup_thresh=0,
    )
    model = transformers.Sam3VideoModel(config).eval()
    _seeing(model.tracker_model)
    processor = transformers.Sam3VideoProcessor(
        transformers.Sam3ImageProcessor(size=SIZE),
        transformers.Sam2VideoVideoProcessor(size=SIZE),
        _tokenizer(),
        target_size=SIDE,
    )
    return model, processor


def _prompted(side):
    patch = {"patch_size": 14} if side == SIDE else {}  # 16 is not the ViT's
    prompts = {"hidden_size": 128, "image_size": side, **patch}
    return {**_TRACKER, "image_size": side, "prompt_encoder_config": prompts}


def _seeing(model):
    """Let it take every object for one that is in the frame: there are no masks otherwise."""
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 9.0)
    return model


def _tokenizer():
    """One that knows the word "block"."""
    transformers, tokenizers = need("transformers"), need("tokenizers")
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "unk", "eos")}
    words = {"<pad>": 0, "block": 1, "<eos>": 2, "<unk>": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, special["unk_token"]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)
