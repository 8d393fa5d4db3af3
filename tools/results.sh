#!/usr/bin/env bash
# Every evaluation behind the documents' tables, from the embedded weights: some hours on two cores.
#
#     make results                    all parts, then the tables of the documents
#     make results PARTS="coco poses" some of them
#
# Needs the photographs of MODEL_ZOO.md beside the checkout, as ../shared/data. Not among the parts:
# the studies (tools/run_study.py), which train for long; and what wants the machine for itself,
# `make benchmark OUTPUT=docs/results/benchmark` and tools/scaling.py.
set -euo pipefail
cd "$(dirname "$0")/.."

PARTS="scenes coco pedestrians gcnn gwrn judge gate baselines angles any_angle uncertain numerics poses jpegtran upright points mirrors prompts"
PYTHON=${PYTHON:-.venv/bin/python}
PROCESSES=${PROCESSES:-2}
DATA=../shared/data
RESULTS=docs/results
COCO="--annotations $DATA/coco_val182/annotations/instances_val.json --images $DATA/coco_val182/images"
PEDESTRIANS="--annotations output/pennfudan/held_out.json --images $DATA/pennfudan_train/images"
SAM=configs/sam_tiny_c4.yaml
DETECTOR=configs/mask_rcnn_pedestrian_c4.yaml
WEIGHTS="MODEL.CANONICALIZER.WEIGHTS canon_seg://canonicalizer"
CACHE="MODEL.CANONICALIZER.CACHE 256"
# Studies of something else than the poses are behind the fast canonicalizer.
FAST="${WEIGHTS}_gcnn.pth"
GATE="MODEL.CANONICALIZER.GATE 2.0"

sweep() {  # sweep FOLDER CONFIG "FLAGS" [KEY VALUE...]: resumes where it was interrupted
    local folder=$RESULTS/$1 config=$2 flags=$3
    shift 3
    $PYTHON tools/eval_rotated.py --config-file "$config" $flags --output "$folder" --resume \
        --num-processes "$PROCESSES" --threads 1 "$@"
}

split() {
    $PYTHON tools/split_coco.py --annotations $DATA/pennfudan_train/annotations/instances_train.json \
        --images $DATA/pennfudan_train/images --output output/pennfudan
}

scenes() {
    sweep scenes $SAM ""
    rm -rf $RESULTS/scenes/scenes
}

coco() {
    sweep coco_val182 $SAM "$COCO --modes vanilla canonical oracle tta"
}

pedestrians() {
    split
    sweep pedestrians $DETECTOR "$PEDESTRIANS --modes vanilla canonical oracle tta"
    sweep pedestrians_turned $DETECTOR "$PEDESTRIANS --modes vanilla" \
        MODEL.SEGMENTER.WEIGHTS $RESULTS/pedestrians_turned/segmenter.pth
}

gcnn() {
    equivariant gcnn
}

gwrn() {
    equivariant gwrn
}

judge() {
    local judge="MODEL.CANONICALIZER.SCORER.NAME SegmenterScorer"
    split
    sweep coco_val182_judge $SAM "$COCO --modes canonical" $judge $CACHE
    sweep pedestrians_judge $DETECTOR "$PEDESTRIANS --modes vanilla canonical" $judge
}

gate() {
    sweep coco_val182_gate $SAM "$COCO --modes canonical" $CACHE $GATE
    split
    sweep pedestrians_gate $DETECTOR "$PEDESTRIANS --modes vanilla canonical" $GATE
}

equivariant() {
    sweep coco_val182_$1 $SAM "$COCO --modes canonical" ${WEIGHTS}_$1.pth $CACHE
    split
    sweep pedestrians_$1 $DETECTOR "$PEDESTRIANS --modes vanilla canonical" ${WEIGHTS}_$1.pth
}

baselines() {
    $PYTHON tools/eval_baselines.py $COCO --output $RESULTS/coco_val182/baselines.json
}

angles() {
    local circle="--angles 0:360:15 --modes vanilla C4 C8 SO2 oracle_any" canvas boxes
    split
    for canvas in expand inscribed; do
        sweep any_angle/pedestrians_$canvas configs/mask_rcnn_pedestrian_so2.yaml \
            "$PEDESTRIANS $circle --canvas $canvas" $CACHE
    done
    sweep any_angle/sam_tight configs/sam_tiny_so2.yaml \
        "$COCO --limit 20 ${circle/ C8/} --box-prompts tight" $CACHE
    for boxes in hull refined; do
        sweep any_angle/sam_$boxes configs/sam_tiny_so2.yaml \
            "$COCO --limit 20 --angles 0:360:15 --modes SO2 oracle_any --box-prompts $boxes" $CACHE
    done
}

mirrors() {
    local modes="--mirrors --modes vanilla canonical oracle" weights=output/canonicalizer_o2
    local options="MODEL.CANONICALIZER.GROUP D4 MODEL.CANONICALIZER.WEIGHTS $weights/canonicalizer.pth"
    if [ ! -f $weights/canonicalizer.pth ]; then  # none is embedded: half an hour of one core
        $PYTHON tools/train_net.py --config-file configs/train/canonicalizer_o2.yaml --resume
    fi
    split
    sweep mirrors/pedestrians configs/mask_rcnn_pedestrian_d4.yaml "$PEDESTRIANS $modes" $CACHE
    sweep mirrors/sam configs/sam_tiny_d4.yaml "$COCO --limit 40 $modes" $CACHE
    pose coco_val182_d4 coco_val182 $options
    pose pennfudan_d4 pennfudan_train $options
}

any_angle() {
    pose coco_val182_any_angle coco_val182 --angles 0:360:15 --canvas inscribed \
        ${WEIGHTS}_so2.pth MODEL.CANONICALIZER.GROUP SO2
    pose coco_val182_so2_as_c4 coco_val182 ${WEIGHTS}_so2.pth
    pose pennfudan_so2_as_c4 pennfudan_train ${WEIGHTS}_so2.pth
}

uncertain() {
    local key=MODEL.CANONICALIZER
    sweep uncertain/keep $SAM "$COCO --modes canonical" $FAST $CACHE $key.UNCERTAIN keep
    sweep uncertain/vote_2 $SAM "$COCO --modes canonical" $FAST $CACHE $key.UNCERTAIN vote
    sweep uncertain/vote_4 $SAM "$COCO --modes canonical" $FAST $CACHE $key.UNCERTAIN vote \
        $key.VOTE_POSES 4
}

numerics() {
    split
    sweep numerics/sam_float32 $SAM "$COCO --modes canonical" $FAST $CACHE
    for key in BFLOAT16 CHANNELS_LAST COMPILE; do
        sweep "numerics/pedestrians_${key,,}" $DETECTOR "$PEDESTRIANS --modes canonical" $FAST $CACHE \
            MODEL.SEGMENTER.$key True
        sweep "numerics/sam_${key,,}" $SAM "$COCO --modes canonical" $FAST $CACHE \
            MODEL.SEGMENTER.$key True
    done
}

poses() {
    local passes=MODEL.CANONICALIZER.SCORER.PASSES
    poses_of gcnn ${WEIGHTS}_gcnn.pth
    poses_of gwrn ${WEIGHTS}_gwrn.pth
    poses_of pretrained ${WEIGHTS}_pretrained.pth $passes 1
    poses_of pretrained_orbit ${WEIGHTS}_pretrained.pth $passes 0
    pose coco_val182_gate coco_val182 $GATE
    pose pennfudan_gate pennfudan_train $GATE
    pose coco_val182_stress coco_val182 --stress
}

poses_of() {  # poses_of NAME KEY VALUE...
    local name=$1
    shift
    pose "coco_val182_$name" coco_val182 "$@"
    pose "pennfudan_$name" pennfudan_train "$@"
    for angle in 15 30; do
        pose "coco_val182_${name}_$angle" coco_val182 --angle $angle "$@"
    done
}

pose() {  # pose NAME FOLDER ARGUMENTS...
    local name=$1 folder=$2
    shift 2
    $PYTHON tools/eval_pose.py --images $DATA/$folder/images --output "$RESULTS/poses/$name.json" "$@"
    rm -f "$RESULTS/poses/${name}_mistakes.png"  # it shows photographs, which are not the project's
}

jpegtran() {
    $PYTHON tools/eval_jpegtran.py --config-file $SAM $COCO --output $RESULTS/jpegtran.json
}

upright() {
    $PYTHON tools/eval_upright.py --images $DATA/coco_val182/images \
        --output $RESULTS/upright/coco_val182.json \
        MODEL.CANONICALIZER.WEIGHTS canon_seg://canonicalizer_pretrained.pth \
        MODEL.CANONICALIZER.SCORER.PASSES 0
}

prompts() {  # an hour of one core and more
    $PYTHON tools/eval_prompts.py --config-file $SAM $COCO --output $RESULTS/prompts
    $PYTHON tools/eval_everything.py --config-file $SAM $COCO --limit 20 --output $RESULTS/everything
}

points() {
    $PYTHON tools/eval_points.py --output $RESULTS/points
}

if [ $# -eq 0 ]; then
    set -- $PARTS
fi
for part in "$@"; do
    if [[ " $PARTS " != *" $part "* ]]; then
        echo "error: there is no part $part; known: $PARTS" >&2
        exit 2
    fi
done
for part in "$@"; do
    echo "==> $part"
    $part
done
$PYTHON tools/update_readme.py
