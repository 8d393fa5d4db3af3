"""Say how a turn acts on pixels and on coordinates, and read images.

The convention, written here and nowhere else:

Frame
    x runs to the right and y down; an image is H x W, rows first.

Sign
    Turns (:class:`canon_seg.core.turn.Turn`) are *counterclockwise* as seen on screen,
    ``numpy.rot90``'s direction. One quarter turn makes a W x H image of an H x W image: what was at
    its right edge is then at the top. A mirror exchanges left and right, and comes before the
    quarter turns. Where a turn is asked for, an integer 0..3 stands for quarter turns.

Pixel edges and pixel centres
    Boxes, polygons, and points are *continuous*: pixel i covers [i, i + 1), the image covers
    [0, W] x [0, H]. Clicks and COCO keypoints are *pixel indices*: i names the centre of pixel i,
    which is i + 1/2 in the continuous frame (detectron2 adds that half when it reads COCO
    keypoints, so keypoints in ``Instances`` are continuous).

    ===========  =======================  ===============================
    turns        continuous (x, y) to     pixel index (x, y) to
    ===========  =======================  ===============================
    0            (x, y)                   (x, y)
    1            (y, W - x)               (y, W - 1 - x)
    2            (W - x, H - y)           (W - 1 - x, H - 1 - y)
    3            (H - y, x)               (H - 1 - y, x)
    ===========  =======================  ===============================

    H and W are those of the frame before turning. The mirror takes x to W - x, and the index x to
    W - 1 - x.

SAM's half pixel
    segment_anything takes clicks as pixel indices and adds the half pixel itself:
    ``PromptEncoder._embed_points`` adds 0.5 after the clicks were scaled to SAM's input frame
    (``ResizeLongestSide``). ``PromptEncoder._embed_boxes`` adds the same 0.5 to boxes, although
    they are edges; the released weights were trained so. Give both as they are and add nothing.

Exactness
    Pixels move by index. Coordinates are exact on dyadic grids (``snap``). So a turn is undone by
    its inverse, and two turns are their composition, bit for bit.

What belongs to other rooms is turned there: COCO's masks and annotations in :mod:`canon_seg.coco`,
detectron2's ``Instances`` in ``canon_seg.d2.instances``.
"""

from canon_seg.images import actions  # noqa: F401 - registers how turns act
