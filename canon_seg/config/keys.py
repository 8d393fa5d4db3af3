"""Define the project's own config keys, each with a comment above it that says what it is."""


def add_canon_seg_config(cfg):
    """Add this project's keys to a config that has the nodes of detectron2's, in place.

    Args:
        cfg: fvcore's or detectron2's ``CfgNode``; new nodes are of its own class.
    """
    CN = type(cfg)  # noqa: N806 - the name that configs have for it everywhere
    cfg.MODEL.CANONICALIZER = CN()
    # "GroupCanonicalizer" (a trained network) or "IdentityCanonicalizer" (the plain segmenter).
    cfg.MODEL.CANONICALIZER.NAME = "GroupCanonicalizer"
    # Weights file written by tools/train_net.py; "" starts from random weights (training only).
    # "canon_seg://NAME" is a file that comes with the package: canonicalizer_pretrained.pth, which
    # the config files take, or canonicalizer_gcnn.pth, which is faster and finds fewer poses.
    cfg.MODEL.CANONICALIZER.WEIGHTS = ""
    # Build the network to be trained: an equivariant one with escnn's free parameters. False: plain
    # exported convolutions, no escnn.
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    # Group of the poses: "C4" (quarter turns), "C8" or C and another number n (multiples of 360 / n
    # degrees), "D4" (quarter turns and mirrors), "SO2" (any angle), "O2" (any angle, and mirrors).
    # The scorer has to know it: the weights of SO2 serve C and any number too, as those of O2 serve
    # D and any number.
    cfg.MODEL.CANONICALIZER.GROUP = "C4"
    # Order of the group of rotations, the older way to name one: 4, or that of GROUP.
    cfg.MODEL.CANONICALIZER.GROUP_ORDER = 4
    # Degrees: with the group SO2 or O2 a smaller tilt is left alone, so that photographs which are
    # level but for that keep their bytes.
    cfg.MODEL.CANONICALIZER.MIN_TILT = 3.0
    # Shorter side in pixels at which an equivariant network sees an image, of the form 32 k + 1, or
    # the side of the square that a SCORER.BACKBONE sees (the root of its pixels, for SO2). A
    # weights file brings its own and wins.
    cfg.MODEL.CANONICALIZER.INPUT_SIZE = 97
    # Probability of each pose (counterclockwise) in the data that the segmenter was trained on. The
    # default means upright for every group.
    cfg.MODEL.CANONICALIZER.PRIOR = [1.0, 0.0, 0.0, 0.0]
    # Weight of the prior loss in the total loss.
    cfg.MODEL.CANONICALIZER.PRIOR_WEIGHT = 100.0
    # Weight of the segmenter's own losses. At 0 the segmenter is never run in training, and
    # tools/train_net.py does not even build it.
    cfg.MODEL.CANONICALIZER.TASK_WEIGHT = 0.0
    # Weight of the uniform distribution mixed into the prior as target of the loss, in [0, 1).
    cfg.MODEL.CANONICALIZER.LABEL_SMOOTHING = 0.0
    # Loss of an equivariant network for SO2, whose output is a vector: "von_mises", or, to compare
    # with, "cosine" and "squared", to which the vector's length says nothing of how sure it is.
    cfg.MODEL.CANONICALIZER.VECTOR_LOSS = "von_mises"
    # MiB of the segmenter's results that are kept, by the content of the canonical image and its
    # prompts: the turns of one image then cost one run. 0 keeps none. The demo of a SAM never keeps
    # any.
    cfg.MODEL.CANONICALIZER.CACHE = 0
    # What to do with an image whose pose is uncertain. "argmax": take the likeliest pose all the
    # same. "keep": leave the image as it is given, so that the results are not equivariant. "vote":
    # run the segmenter in the likeliest poses and merge the results, which are equivariant.
    cfg.MODEL.CANONICALIZER.UNCERTAIN = "argmax"
    # A pose is uncertain if its probability is below this.
    cfg.MODEL.CANONICALIZER.UNCERTAIN_BELOW = 0.5
    # Poses in which the segmenter runs for a vote, 2 or 4.
    cfg.MODEL.CANONICALIZER.VOTE_POSES = 2
    # Leave an image as it is given unless the log-probability of the likeliest pose is above that
    # of the given one by this margin; 0.0 is off. For photographs that are mostly upright: results
    # are not equivariant. (UNCERTAIN "keep" asks how sure the likeliest pose is by itself.)
    cfg.MODEL.CANONICALIZER.GATE = 0.0
    # IoU above which of two detections of one class, found in different poses, one is left out
    # (votes and test-time augmentation; TEST.DETECTIONS_PER_IMAGE bounds their number).
    cfg.MODEL.CANONICALIZER.MERGE_NMS_THRESH = 0.5

    # What says how likely each pose is.
    cfg.MODEL.CANONICALIZER.SCORER = CN()
    # "NetworkScorer": the network of WEIGHTS, or one to be trained, of BACKBONE or NETWORK below.
    # "SegmenterScorer": the segmenter itself, which runs in all poses, by how sure it is in each.
    # "EnergyScorer": a function from an image to a number, see ENERGY. Or a scorer that was
    # registered under its name. For image classification also "SquareScorer", a BACKBONE with an
    # output for each pose of any C(n), and "ConfidenceScorer", the classifier itself by how sure it
    # is in each pose.
    cfg.MODEL.CANONICALIZER.SCORER.NAME = "NetworkScorer"
    # The registered function of an "EnergyScorer", by its name.
    cfg.MODEL.CANONICALIZER.SCORER.ENERGY = ""
    # What energies are divided by for log-probabilities, also those of a "SegmenterScorer": the
    # difference that makes one pose e times as likely as another.
    cfg.MODEL.CANONICALIZER.SCORER.TEMPERATURE = 0.01
    # The backbone to train in place of the equivariant NETWORK below, by its name in timm; "" for
    # none. A weights file brings its own; a name beside it must be the same.
    cfg.MODEL.CANONICALIZER.SCORER.BACKBONE = ""
    # Its weights from ImageNet, to train from: a file, or package://NAME/PATH for a file of an
    # installed Python package; "" starts from random weights.
    cfg.MODEL.CANONICALIZER.SCORER.PRETRAINED = ""
    # Its first stages that keep these weights: most of the time of training goes into them.
    cfg.MODEL.CANONICALIZER.SCORER.FREEZE_STAGES = 0
    # Of a "SquareScorer": how many of the backbone's first blocks are kept; 0 keeps all.
    cfg.MODEL.CANONICALIZER.SCORER.BLOCKS = 0
    # Turns of an image that the backbone looks at: 0 for all of the group, whose log-probabilities
    # are averaged, or 1. An equivariant network looks once and knows of all of them.
    cfg.MODEL.CANONICALIZER.SCORER.PASSES = 0

    # A trained canonicalizer that teaches the one to be trained on photographs (distillation): what
    # it says of each view is mixed into the target of the prior loss.
    cfg.MODEL.CANONICALIZER.TEACHER = CN()
    # Its weights file; "" for no teacher.
    cfg.MODEL.CANONICALIZER.TEACHER.WEIGHTS = ""
    # Weight of what it says in the mixture, 0 to 1; the prior has the rest.
    cfg.MODEL.CANONICALIZER.TEACHER.SHARE = 0.7
    # Side in pixels at which it looks at the views, which are small; 0 for that of its file.
    cfg.MODEL.CANONICALIZER.TEACHER.INPUT_SIZE = 0

    # The network to train; a weights file brings its own and wins.
    cfg.MODEL.CANONICALIZER.NETWORK = CN()
    # "GCNN" (0.2 M parameters) or "GWRN" (1.9 M with FIELDS (8, 16, 32, 64, 160) and DEPTH 1).
    cfg.MODEL.CANONICALIZER.NETWORK.NAME = "GCNN"
    # Regular feature fields of the stem and of each stage; a channel each for every element of the
    # group (4 for C4, 8 for C8 and D4), or for every one of ORIENTATIONS.
    cfg.MODEL.CANONICALIZER.NETWORK.FIELDS = [8, 16, 32, 48]
    # Convolutions (GCNN) or residual blocks (GWRN) of each stage.
    cfg.MODEL.CANONICALIZER.NETWORK.DEPTH = 2
    # Side in pixels of the filters of the stages, odd. 3 does for quarter turns and mirrors; other
    # turns need 5.
    cfg.MODEL.CANONICALIZER.NETWORK.KERNEL = 3
    # With the group SO2, whose pose is a vector: orientations that the feature fields tell apart.
    cfg.MODEL.CANONICALIZER.NETWORK.ORIENTATIONS = 8
    # Look at the disc in the middle of an image, where the group has other turns than quarter turns
    # and mirrors: these move the corners out of the picture.
    cfg.MODEL.CANONICALIZER.NETWORK.DISC = True
    # Blur before each stride, so that fine structure does not turn into other structure when the
    # image is turned by other angles than quarter turns.
    cfg.MODEL.CANONICALIZER.NETWORK.BLUR = False

    cfg.MODEL.SEGMENTER = CN()
    # Any meta-architecture in detectron2's registry, with its own config keys; "" for none.
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "SamSegmenter"
    # Its checkpoint, unmodified: detectron2 .pkl or .pth, or a SAM .pth; "" leaves random weights.
    cfg.MODEL.SEGMENTER.WEIGHTS = ""
    # Names of its classes, for pictures; [] takes those of the data set that the config names.
    cfg.MODEL.SEGMENTER.CLASSES = []
    # Keep the segmenter in eval mode and out of the optimizer.
    cfg.MODEL.SEGMENTER.FREEZE = True
    # Run the image's part (SAM's image encoder, a detector's backbone) in bfloat16 (autocast). This
    # key and the two below are for evaluation.
    cfg.MODEL.SEGMENTER.BFLOAT16 = False
    # Compile the image's part (torch.compile), which takes minutes at the first image.
    cfg.MODEL.SEGMENTER.COMPILE = False
    # Keep the feature maps of the image's part in channels-last order.
    cfg.MODEL.SEGMENTER.CHANNELS_LAST = False

    # What classifies images, where MODEL.META_ARCHITECTURE is CanonicalizedClassifier.
    cfg.MODEL.CLASSIFIER = CN()
    # A model by its name in timm, or "torchvision://NAME".
    cfg.MODEL.CLASSIFIER.NAME = "tf_efficientnet_lite0"
    # How many of its first blocks are kept, counted through all stages (EfficientNets of timm's); 0
    # keeps all.
    cfg.MODEL.CLASSIFIER.BLOCKS = 0
    # Weights file: one of tools/train_net.py, which brings model, size and classes along, or a
    # state dict of the model that is named; "" leaves random weights.
    cfg.MODEL.CLASSIFIER.WEIGHTS = ""
    # Its weights from ImageNet, to train from: a file, or package://NAME/PATH for a file of an
    # installed Python package; or a file of a longer network that tools/train_net.py wrote; ""
    # starts from random weights.
    cfg.MODEL.CLASSIFIER.PRETRAINED = ""
    # Side in pixels to which images are resized for it; 0 takes that of the weights file, or 64.
    cfg.MODEL.CLASSIFIER.INPUT_SIZE = 0
    # Its first stages that keep these weights where it is trained: most of the time goes into them.
    cfg.MODEL.CLASSIFIER.FREEZE_STAGES = 0
    # Keep it as it is while the canonicalizer is trained.
    cfg.MODEL.CLASSIFIER.FREEZE = True
    # Weight of the uniform distribution over the classes in its loss, in [0, 1).
    cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING = 0.0

    cfg.MODEL.SAM = CN()
    # "vit_h", "vit_l", "vit_b" (segment_anything's) or "tiny" (ours, light enough for CPUs).
    cfg.MODEL.SAM.SIZE = "vit_h"
    # Choose among SAM's three masks by predicted IoU; False takes its single-mask output.
    cfg.MODEL.SAM.MULTIMASK = True
    # Prompts that go through the mask decoder at once; bounds the memory.
    cfg.MODEL.SAM.PROMPTS_PER_BATCH = 32
    # Where an image was tilted to its canonical pose, a box prompt is the hull of the tilted box,
    # larger than what it is meant for: ask with several smaller ones, and take the answer that
    # reaches as far as the box that was drawn.
    cfg.MODEL.SAM.REFINE_BOXES = True
    # Where the evaluation's prompts come from: "boxes" (ground truth), a COCO results file, or
    # "detector" (MODEL.SAM.DETECTOR).
    cfg.MODEL.SAM.PROMPTS = "boxes"
    # Prompts drawn from each training image.
    cfg.MODEL.SAM.TRAIN_PROMPTS = 16
    # Steps at the start with cross-entropy (positives weighted 3) in place of the focal loss,
    # which stays at empty masks for long when training from scratch.
    cfg.MODEL.SAM.WARMUP_STEPS = 1000
    # Mask loss after that: "focal" (the SAM paper's, 20:1 with dice) or "cross_entropy" (a mean
    # around each object and one over the rest, 2:1, with dice).
    cfg.MODEL.SAM.MASK_LOSS = "focal"

    # A detectron2 model whose boxes prompt SAM on the canonical image.
    cfg.MODEL.SAM.DETECTOR = CN()
    # Its config: a YAML file of detectron2's or this project's, or a name in detectron2's model
    # zoo, such as "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml".
    cfg.MODEL.SAM.DETECTOR.CONFIG_FILE = ""
    # Its checkpoint, .pkl or .pth; "" takes the segmenter of a config of this project.
    cfg.MODEL.SAM.DETECTOR.WEIGHTS = ""
    # Detections with a lower score are left out.
    cfg.MODEL.SAM.DETECTOR.SCORE_THRESH = 0.05

    cfg.MODEL.SAM.TINY = CN()
    # Side of the square input in pixels.
    cfg.MODEL.SAM.TINY.IMAGE_SIZE = 512
    # Its image encoder: an EfficientNet by its name in timm, with a decoder of two stages; "" for
    # the residual network of CHANNELS and BLOCKS, which knows boxes only.
    cfg.MODEL.SAM.TINY.BACKBONE = "tf_efficientnet_lite0"
    # The backbone's weights from ImageNet, to train from: a file, or package://NAME/PATH for a file
    # of an installed Python package; "" starts from random weights.
    cfg.MODEL.SAM.TINY.PRETRAINED = ""
    # Its first stages that keep these weights: most of the time of training goes into them.
    cfg.MODEL.SAM.TINY.FREEZE_STAGES = 0
    # Without BACKBONE: channels of the encoder's stages at strides 4, 8, 16 and 32; the last in
    # steps of 64, for an even number of attention heads, which torch has fast code for.
    cfg.MODEL.SAM.TINY.CHANNELS = [32, 64, 128, 256]
    # Without BACKBONE: residual blocks in each stage.
    cfg.MODEL.SAM.TINY.BLOCKS = [1, 2, 3, 2]
    # Channels of the prompts and of the mask decoder at stride 8, a multiple of 16; the image
    # embedding, which carries details of strides 4 and 2 along, has four times as many.
    cfg.MODEL.SAM.TINY.EMBED_DIM = 64

    # Images with one class each, for CanonicalizedClassifier: torchvision's folder of CIFAR-10, or
    # a folder of class folders (below train/ and test/, where there are these); "" draws some.
    cfg.DATASETS.CLASSES = ""
    # Training images of DATASETS.CLASSES that are kept out of training to watch it.
    cfg.DATASETS.HELD_OUT_IMAGES = 1000
    # COCO-format sets to register under a name: (name, annotations.json, image folder).
    cfg.DATASETS.COCO = []
    # Sets (of DATASETS.COCO) whose objects are pasted into the images that SAM is trained on.
    cfg.DATASETS.PASTE = ()
    # Sets (of DATASETS.COCO) on whose objects a SAM is measured by boxes and clicks in training.
    cfg.DATASETS.TEST_PROMPTS = ()
    # Folders of upright photographs without labels; all that is needed when TASK_WEIGHT is 0.
    cfg.DATASETS.PHOTOS = []
    # Photographs that are not all upright, with files that say which way they lie, as
    # tools/label_poses.py writes them: (poses.json, folder of the photographs). They are brought
    # upright and then trained on like those of PHOTOS.
    cfg.DATASETS.POSES = []
    # Photographs of DATASETS.POSES are left out whose pose is less probable than this, 0 to 1.
    cfg.DATASETS.POSES_ABOVE = 0.6
    # A subfolder of DATASETS.PHOTOS with n photos is drawn in proportion to n ** FOLDER_POWER: at 1
    # all photos are equally likely, at 0 all subfolders.
    cfg.DATASETS.FOLDER_POWER = 0.75
    # Which photographs are kept out of training to watch it, one in 25. "EVERY_25TH": by place in
    # the list. "BY_CONTENT": by name, photographs that look nearly alike on the same side.
    cfg.DATASETS.HELD_OUT = "EVERY_25TH"
    # Subfolders of photographs in series, as of a drive: BY_CONTENT trains on all of these.
    cfg.DATASETS.SERIES = []
    # At most so many photographs, taken at even distances from all; 0 for all.
    cfg.DATASETS.MAX_PHOTOS = 0
    # Decode all images before a training begins, and not only when they are drawn.
    cfg.DATASETS.CHECK_IMAGES = True
    # File that remembers which images were found whole before a training or an evaluation, so that
    # the next one need not decode them; "" for none.
    cfg.DATASETS.CHECK_CACHE = "~/.cache/canon-seg/checked_images.json"
    # For studies: this fraction of the training photographs is turned, always the same ones.
    cfg.DATASETS.TURNED_FRACTION = 0.0
    # Quarter turns by which these are turned: 1, 2 or 3; 0 for a random one each.
    cfg.DATASETS.TURNED_BY = 0
    # Apply the orientation in the EXIF data of image files. False reads the raw frames, for
    # annotations that were made on these.
    cfg.INPUT.EXIF = True
    # Image files that claim more pixels are refused before they are decoded, since few bytes can
    # claim more than the memory holds; 0 takes Pillow's limit, 178956970.
    cfg.INPUT.MAX_PIXELS = 0
    # Smallest side of a training crop as a fraction of the photo's side.
    cfg.INPUT.CROP_MIN_SCALE = 0.5
    # Sides in pixels of the square views that a SCORER.BACKBONE is trained on, one drawn for each
    # batch.
    cfg.INPUT.VIEW_SIDES = [128, 160, 192]
    # Share of the photographs for the prior loss that are shown tilted by up to 42 degrees with
    # plain corners, so that poses are found off the quarter turns too.
    cfg.INPUT.CANVAS_FRACTION = 0.0
    # Largest change of brightness, contrast and saturation in the training of detectors, 0 to 1.
    cfg.INPUT.COLOR_JITTER = 0.0
    # Side in pixels of the images of DATASETS.CLASSES; others are cut to their middle square and
    # resized. Turns are about the centre of this square.
    cfg.INPUT.IMAGE_SIDE = 32
    # Group by whose elements the training images of a classifier without canonicalizer are turned
    # at random, such as "C8"; "" leaves them upright.
    cfg.INPUT.TURNS = ""
    # Side of the grey square that hides a part of each training image of a classifier (Cutout), as
    # a share of the image's; 0 hides nothing.
    cfg.INPUT.CUTOUT = 0.0
    # Turn the training images of a segmenter that is trained by itself by random quarter turns:
    # what the canonicalizer makes unnecessary, here to compare.
    cfg.INPUT.QUARTER_TURNS = False

    # "SGD" (momentum, weight decay and Nesterov as in detectron2) or "ADAMW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of layers that start from PRETRAINED weights, as a multiple of BASE_LR.
    cfg.SOLVER.PRETRAINED_LR_FACTOR = 1.0
    # Train in bfloat16 where that is safe (autocast); on CPUs too, twice as fast on recent ones.
    cfg.SOLVER.BFLOAT16 = False
    # Decay per step of the averaged weights that are written at the end; 0 switches it off.
    cfg.SOLVER.EMA_DECAY = 0.0
