"""A study file that is wrong is refused with one message that names every fault, its place, and what would be right."""

import json
import re
from pathlib import Path

import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import parse_study, read_study, study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.errors import ExitCode, StudyFileError

DIGITS = builtin_studies()["digits"].read_text(encoding="utf-8")
TEMPERATURE = "{type: float, low: 1.0, high: 8.0}"
NORMALIZE = "normalize: dataset, epochs"
PRUNER = "{name: successive_halving, grace_period: 4, reduction_factor: 3}"


def changed(old: str, new: str) -> str:
    assert DIGITS.count(old) == 1, f"{old!r} must be in digits.yaml once"
    return DIGITS.replace(old, new)


def faults_of(text: str) -> str:
    with pytest.raises(StudyFileError) as caught:
        parse_study(text, source="study.yaml")
    assert caught.value.exit_code == ExitCode.USAGE
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # unknown keys, with the near name
        ("n_trials: 24", "n_trails: 24", "n_trails: unknown key (did you mean n_trials?); remove or rename it"),
        ("learning_rate: {", "learning_rat: {",
         "hyperparameters.learning_rat: unknown key (did you mean learning_rate?); remove or rename it"),
        (PRUNER, "{name: percentile, kep: 50}", "pruner.kep: unknown key (did you mean keep?); remove or rename it"),
        ("split_seed: 0", "splitseed: 0",
         "dataset.splitseed: unknown key (did you mean split_seed?); remove or rename it"),
        (PRUNER, "{name: median, keep: 50}",
         "pruner.keep: unknown key (known here: name, grace_period, patience); remove or rename it"),
        # known ones, in the wrong place
        ("n_trials: 24", "epochs: 3\nn_trials: 24",
         "epochs: unknown key (did you mean teacher.epochs or training.epochs?); remove or rename it"),
        # wrong types
        ("n_trials: 24", "n_trials: many", 'n_trials: "many" must be a whole number'),
        ("n_trials: 24", "n_trials: 24.5", "n_trials: 24.5 must be a whole number"),
        ("n_trials: 24", "n_trials: true", "n_trials: true must be a whole number"),
        ("n_trials: 24", 'n_trials: "24"', 'n_trials: "24" must be a whole number'),
        ("name: digits\ndataset", "name: 12\ndataset", "name: 12 must be text; quote it if it is meant as text"),
        ("horizontal_flip: false", "horizontal_flip: no", 'augmentation.horizontal_flip: "no" must be true or false'),
        ("horizontal_flip: false", "horizontal_flip: 0", "augmentation.horizontal_flip: 0 must be true or false"),
        (PRUNER, "percentile", 'pruner: "percentile" must be a mapping of keys to values'),
        ("weight_decay: 5.0e-4", "weight_decay: abc", 'hyperparameters.weight_decay: "abc" must be a number'),
        ("weight_decay: 5.0e-4", "weight_decay:", "hyperparameters.weight_decay: null must be a number"),
        ("weight_decay: 5.0e-4", "weight_decay: [0, 1e-4]",
         ("hyperparameters.weight_decay: [0, 0.0001] is a list; to search these values write "
          "{type: categorical, choices: [0, 0.0001]}")),
        ("batch_size: 128", "batch_size: 12.5", "hyperparameters.batch_size: 12.5 must be a whole number"),
        ("[student, kd, ig, kd_ig]", "student", 'controls: "student" must be a list in [brackets]'),
        # not finite
        ("weight_decay: 5.0e-4", "weight_decay: .nan", "hyperparameters.weight_decay: NaN must be a finite number"),
        ("high: 8.0", "high: .inf", "hyperparameters.temperature.high: Infinity must be a finite number"),
        # ranges
        (TEMPERATURE, "{type: float, low: 9.0, high: 8.0}",
         "hyperparameters.temperature.high: low 9.0 is above high 8.0; swap them"),
        ("low: 1.0e-3, high: 1.0, log", "low: 0, high: 1.0, log",
         "hyperparameters.learning_rate.log: log: true needs low above 0, not 0.0; raise low or set log: false"),
        (TEMPERATURE, "{type: float, low: 1.0, high: 8.0, step: 1, log: true}",
         "hyperparameters.temperature.step: log: true and step exclude each other; remove one of them"),
        (TEMPERATURE, "{type: float, low: 1.0, high: 8.0, step: 10}",
         ("hyperparameters.temperature.step: 10.0 steps over everything from 1.0 to 8.0; lower step, "
          "or write the plain value")),
        (TEMPERATURE, "{type: float, low: 1.0, high: 8.0, step: 0}",
         "hyperparameters.temperature.step: 0 must be greater than 0"),
        (TEMPERATURE, "{type: flaot, low: 1.0, high: 8.0}",
         'hyperparameters.temperature.type: "flaot" is not one of float, int, categorical (did you mean float?)'),
        (TEMPERATURE, "{low: 1.0, high: 8.0}",
         "hyperparameters.temperature.type: missing; it is one of float, int, categorical"),
        (TEMPERATURE, "{type: float, low: 1.0}",
         "hyperparameters.temperature.high: missing; add it, it has no default"),
        ("batch_size: 128", "batch_size: {type: float, low: 16, high: 32}",
         'hyperparameters.batch_size.type: "float" is not one of int, categorical'),
        ("batch_size: 128", "batch_size: {type: categorical, choices: [32, 64.5]}",
         "hyperparameters.batch_size: choice 64.5 is not a whole number; write whole numbers only"),
        ("batch_size: 128", "batch_size: {type: categorical, choices: [32, a]}",
         'hyperparameters.batch_size.choices[1]: "a" must be a number'),
        ("batch_size: 128", "batch_size: {type: categorical, choices: [32, 64, 32]}",
         "hyperparameters.batch_size.choices: 32, 64, 32 repeat a value; write each value once"),
        ("batch_size: 128", "batch_size: {type: categorical, choices: []}",
         "hyperparameters.batch_size.choices: 0 values; it takes at least 1"),
        # what the quantity itself allows
        (TEMPERATURE, "0", "hyperparameters.temperature: 0.0 is out of range; it must be above 0 and at most 100"),
        ("{type: float, low: 0.0, high: 1.0}", "1.5",
         "hyperparameters.alpha: 1.5 is out of range; it must be from 0 to 1"),
        ("{type: float, low: 0.0, high: 1.0}", "{type: float, low: 0.0, high: 1.5}",
         "hyperparameters.alpha: 1.5 is out of range; it must be from 0 to 1"),
        ("batch_size: 128", "batch_size: {type: categorical, choices: [1, 64]}",
         "hyperparameters.batch_size: 1 is out of range; it must be from 2 to 65536"),
        ("layers_removed: 5", "layers_removed: 18",
         "hyperparameters.layers_removed: 18 is out of range; it must be from 0 to 17"),
        ("validation_fraction: 0.2", "validation_fraction: 1", "dataset.validation_fraction: 1 must be less than 1"),
        ("epochs: 12", "epochs: 0", "training.epochs: 0 must be greater than or equal to 1"),
        ("split_seed: 0", "split_seed: 4294967296",
         "dataset.split_seed: 4294967296 must be less than or equal to 2147483647"),
        # words of a union
        (PRUNER, "{name: precentile}",
         ('pruner.name: "precentile" is not one of percentile, median, successive_halving, hyperband, none '
          "(did you mean percentile?)")),
        (PRUNER, "{keep: 50}",
         "pruner.name: missing; it is one of percentile, median, successive_halving, hyperband, none"),
        ("name: tpe", "name: tep", 'sampler.name: "tep" is not one of tpe, gp, qmc, random, grid (did you mean tpe?)'),
        ("name: digits\n  validation", "name: cifar\n  validation",
         ('dataset.name: "cifar" is not one of cifar10, cifar100, digits, folder, module:function, '
          "huggingface/OWNER/NAME, patches, torchvision/NAME (did you mean cifar10?)")),
        ("name: digits\n  validation", "name: torchvision/EuroSat\n  validation",
         ('dataset.name: "torchvision/EuroSat" is no labelled data set of torchvision '
          "(did you mean torchvision/EuroSAT?)")),
        ("name: digits\n  validation", "name: torchvision/CelebA\n  validation",
         ('dataset.name: "torchvision/CelebA" has forty yes-or-no labels for each image, and no class; '
          "choose another data set")),
        ("name: digits\n  validation", "name: huggingface/../x\n  validation",
         ('dataset.name: "huggingface/../x" is not of the form huggingface/OWNER/NAME or huggingface/NAME; '
          "copy the name from its page")),
        ("name: digits\n  validation", "name: [digits]\n  validation",
         'dataset.name: ["digits"] must be text; quote it if it is meant as text'),
        ("name: digits\n  validation", "name: torchvision/DTD\n  validation",
         "dataset.image_size: torchvision/DTD has images of many sizes; give image_size, such as 64"),
        ("name: digits\n  validation", "name: digits\n  label_column: kind\n  validation",
         ("dataset.label_column: 'kind' is for huggingface/OWNER/NAME datasets, not for digits; "
          "remove label_column")),
        (NORMALIZE, "normalize: imagenet, epochs",
         ('teacher.normalize: "imagenet" is not one of dataset, weights, none, or '
          "[[mean, mean, mean], [std, std, std]] in [0, 1] pixels")),
        (NORMALIZE, "normalize: [[0.5, 0.5, 0.5], [0.5, 0.5]], epochs",
         "teacher.normalize[1][2]: missing; the list is too short"),
        (NORMALIZE, "normalize: [[0.5, 0.5, 0.5], [0.5, 0, 0.5]], epochs",
         "teacher.normalize[1][1]: 0 must be greater than 0"),
        (NORMALIZE, "normalize: [[123.7, 0.5, 0.5], [0.5, 0.5, 0.5]], epochs",
         "teacher.normalize[0][0]: 123.7 must be less than or equal to 1"),
        ("n_steps: 16", "n_steps: automatic",
         'attribution.n_steps: "automatic" is not auto, or a whole number from 2 to 1000'),
        ("n_steps: 16", "n_steps: 1", "attribution.n_steps: 1 must be greater than or equal to 2"),
        ("version: 1", "version: 2", "version: 2 is not one of 1"),
        ("name: digits\ndataset", "name: my study\ndataset",
         ("name: \"my study\" must be 1 to 100 letters, digits, '.', '_' or '-', a letter or digit first; "
          "write my-study")),
        # keys that do not go together
        ("[student, kd, ig, kd_ig]", "[student, kd, student]",
         "controls: student, kd, student: one is there twice; write each once"),
        ("[student, kd, ig, kd_ig]", "[student, igg]",
         'controls[1]: "igg" is not one of student, kd, ig, kd_ig, at, kd_at, ig_at, kd_ig_at, paper (did you mean ig?)'),  # noqa: E501
        ("n_trials: 24", "n_trials: 3",
         "controls: 4 controls do not fit into n_trials 3; raise n_trials or drop controls"),
        ("name: digits\n  validation", "name: digits\n  root: here\n  validation",
         "dataset.root: 'here' is not used: digits comes with scikit-learn; remove root"),
        ("name: digits\n  validation", "name: digits\n  image_size: 16\n  validation",
         "dataset.image_size: 16 is not used: digits keeps its own size; remove image_size"),
        ("name: digits\n  validation", "name: digits\n  bits: 12\n  validation",
         "dataset.bits: 12 is for folder datasets, not for digits; remove bits"),
        ("name: digits\n  validation", 'name: folder\n  root: "a\\0b"\n  validation',
         "dataset.root: 'a\\x00b' holds the character 0, which no path has; remove it"),
        ("name: digits\n  validation", "name: digits\n  bits: 17\n  validation",
         "dataset.bits: 17 must be less than or equal to 16"),
        ("name: digits\n  validation", "name: digits\n  fit: crop\n  validation",
         "dataset.fit: crop is for folder, module:function, huggingface/OWNER/NAME, torchvision/NAME datasets, \
not for digits; remove fit"),
        ("name: digits\n  validation", "name: folder\n  root: images\n  fit: pad\n  validation",
         "dataset.fit: pad makes squares of image_size, which is not given; add image_size, or remove fit"),
        ("name: digits\n  validation", "name: digits\n  follow_links: true\n  validation",
         "dataset.follow_links: true is for folder datasets, not for digits; remove follow_links"),
        ("name: digits\n  validation", "name: folder\n  validation",
         "dataset.root: a folder dataset needs root, the directory that holds train/<class>/*, or a list in CSV, \
path,label[,split]"),
        ("  width: 0.5\n", "  width: 0.5\n  objective: kdd\n",
         """hyperparameters.objective: 'kdd' is not one of dist, dkd, \
foster, kd, logit_mse, logit_standardization, r2kd (did you mean kd?)"""),
        ("  width: 0.5\n", "  width: 0.25\n  init: teacher_prefix\n", "hyperparameters: init: teacher_prefix needs \
students as wide as the teacher; write width: 0.5, or init: random"),
        ("  width: 0.5\n", "  width: {type: float, low: 0.5, high: 1.0}\n  init: {type: categorical, \
choices: [random, teacher_prefix]}\n", "hyperparameters: init: teacher_prefix needs \
students as wide as the teacher; write width: 0.5, or init: random"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_place_and_remedy(old: str, new: str, message: str) -> None:
    assert faults_of(changed(old, new)) == f"study.yaml: {message}"


def test_all_faults_come_in_one_message() -> None:
    text = (
        changed("n_trials: 24", "n_trials: x")
        .replace("low: 1.0,", "low: 9.0,")
        .replace("  name: digits", "  nmae: digits")
    )
    text = text.replace("layers_removed: 5", "layers_removed: 50").replace(
        PRUNER, "{name: percentile, keep: 500, kep: 1}"
    )
    assert [line.split(": ")[0] for line in faults_of(text).splitlines()] == [
        "study.yaml has 6 faults:",
        "  dataset.nmae",
        "  hyperparameters.temperature.high",
        "  hyperparameters.layers_removed",
        "  pruner.keep",
        "  pruner.kep",
        "  n_trials",
    ]


@pytest.mark.parametrize("key", ["value", "none", "float", "word"])
def test_a_key_named_like_a_union_tag_is_still_an_unknown_key(key: str) -> None:
    assert re.fullmatch(f"study.yaml: {key}: .* version, name, .*", faults_of(f"{DIGITS}\n{key}: 3\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml holds nothing;"),
        ("# a comment\n", "study.yaml holds nothing;"),
        ("- a\n", "study.yaml holds a list;"),
        ("hello\n", "study.yaml holds one plain value;"),
        (DIGITS + "\nn_trials: 3\n", "line 31, column 1: found duplicate key \"n_trials\""),
        (DIGITS.replace("  validation", "\tvalidation"),
         "line 6, column 1: a tab "),
        (DIGITS + "\n---\na: 1\n", "line 31, column 1: a second document "),
        (DIGITS + "\nx: !!python/object/apply:os.system [ls]\n",
         "'tag:yaml.org,2002:python/object/apply:os.system'"),
        (DIGITS.replace("name: digits\n", "name:digits\n", 1),
         "column 1: a key without its value;"),
        ("name: {digits\n", "is not YAML: line 2, column 1:"),
        ("name: \x00", "is not YAML:"),
        ("a: " + "[" * 3000, "is nested too deeply, more than 32 levels;"),
        ("a: &a {b: *a}\n", "an alias (*name) "),
        ("a: !!binary aGVsbG8=\n", "neither text nor number: Object of type bytes "),
        ("? [a, b]\n: 1\n", "neither text nor number: keys must be"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_is_refused_in_one_line(text: str, message: str) -> None:
    told = faults_of(text)
    assert message in told
    assert "\n" not in told
    assert told.startswith("study.yaml ")


def test_numbers_and_words_are_those_of_yaml_1_2() -> None:
    """PyYAML, which speaks YAML 1.1, takes 1e-3 as text and `no` as false."""
    study = parse_study(changed("weight_decay: 5.0e-4", "weight_decay: 1e-3"), source="-")
    assert study.hyperparameters.weight_decay == 0.001
    assert parse_study(changed("name: digits\ndataset", "name: no\ndataset"), source="-").name == "no"
    assert parse_study(changed("name: digits\ndataset", "name: 2026-01-31\ndataset"), source="-").name == "2026-01-31"


def test_a_whole_number_is_a_real_number_and_stays_whole_among_choices() -> None:
    text = changed(TEMPERATURE, "{type: float, low: 1, high: 8}").replace(
        "batch_size: 128", "batch_size: {type: categorical, choices: [64, 128]}"
    )
    searched = parse_study(text, source="-").hyperparameters.searched()
    assert repr(searched["temperature"].corners()) == "(1.0, 8.0)"
    assert repr(searched["batch_size"].corners()) == "(64, 128)"


def test_the_order_of_searched_and_fixed_names_is_the_order_of_the_format() -> None:
    hyperparameters = parse_study(DIGITS, source="-").hyperparameters
    assert list(hyperparameters.searched()) == [
        "temperature", "alpha", "overlay_probability", "overlay_strength", "learning_rate"
    ]  # fmt: skip
    assert {key: hyperparameters.fixed()[key] for key in ("weight_decay", "batch_size", "layers_removed", "width")} == {
        "weight_decay": 5e-4,
        "batch_size": 128,
        "layers_removed": 5,
        "width": 0.5,
    }


BLOCKS = ".* mobilenet_v2 without input_size .*"


@pytest.mark.parametrize("teacher", ["{architecture: resnet18}", "{architecture: mobilenet_v2, input_size: 16}"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("hint_weight: 1.0\n  teacher_tail_weight: 0.1", f"teacher_tail_weight: {BLOCKS}"),
        ("width: 1.0\n  init: teacher_prefix", f"init: teacher_prefix: {BLOCKS}"),
    ],
)
def test_a_teacher_without_known_blocks_cannot_serve_terms_on_features(
    teacher: str, settings: str, message: str
) -> None:
    (own,) = [line for line in DIGITS.splitlines() if line.startswith("teacher:")]
    text = DIGITS.replace(own, f"teacher: {teacher}").replace("  width: 0.5\n", f"  {settings}\n")
    assert re.fullmatch(f"study.yaml: hyperparameters: {message}", faults_of(text))
    plain = text.replace(settings, "attribution_weight: 1.0\n  objective: dist")
    assert parse_study(plain, source="-").hyperparameters.highest("attribution_weight") == 1
    attending = plain.replace("[student, kd, ig, kd_ig]", "[student, at, kd_ig_at]")
    assert parse_study(attending, source="-").controls == ("student", "at", "kd_ig_at")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("{folds: 1}", "folds: 1 .* 0.* 2 .*"),
        ("{members: 3, folds: 2}", "folds: 2 folds .* 3 members .*"),
        ("{checkpoint: a.pt, members: 2}", "members: 2 .* checkpoint .* 1"),
        ("{checkpoint: [a.pt, b.pt], members: 3}", r"members: 3\b.* checkpoint .* 2\b.* members"),
        ("{checkpoint: [a.pt, b.pt], folds: 2}", "folds: 2 folds .* teacher .*"),
        ("{checkpoint: []}", "checkpoint: .* empty.* null"),
        ("{checkpoint_key: ema}", "checkpoint_key: 'ema' .*checkpoint.*"),
        ("{checkpoint: a.pt, class_weights: balanced}", "class_weights: balanced .* trained here.* remove .*"),
        ("{class_weights: auto}", 'class_weights: "auto" .* none, balanced'),
        ("{checkpoint: 3}", "checkpoint: 3 .* path.*"),
        ("{checkpoint: [a.pt, 3]}", r"checkpoint\[1\]: 3 .* text.*"),
    ],
)
def test_teachers_that_cannot_be_had(teacher: str, message: str) -> None:
    (own,) = [line for line in DIGITS.splitlines() if line.startswith("teacher:")]
    assert re.fullmatch(rf"study.yaml: teacher\.{message}", faults_of(DIGITS.replace(own, f"teacher: {teacher}")))


@pytest.mark.parametrize("value", ["0.5", "{type: float, low: 0.0, high: 0.5}"])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_images_are_mixed_by_number_or_in_each_step(name: str, value: str) -> None:
    (own,) = [line for line in DIGITS.splitlines() if line.startswith("augmentation:")]
    text = DIGITS.replace(own, "augmentation: {views: 4, mixed: 0.5}")
    assert parse_study(text, source="-").augmentation.mixed == 0.5
    refused = faults_of(text.replace("  width: 0.5\n", f"  width: 0.5\n  {name}: {value}\n"))
    assert re.fullmatch(f"study.yaml: hyperparameters: {name} .* augmentation.mixed .*", refused)


def test_mixtures_are_in_no_table() -> None:
    (own,) = [line for line in DIGITS.splitlines() if line.startswith("teacher:")]
    text = DIGITS.replace(own, "teacher: {width: 0.5, logits: cached}")
    sometimes = text.replace("  width: 0.5\n", "  width: 0.5\n  mixup: {type: float, low: 0.0, high: 1.0}\n")
    assert not parse_study(sometimes, source="-").hyperparameters.always_mixes
    refused = faults_of(text.replace("  width: 0.5\n", "  width: 0.5\n  cutmix: 0.5\n"))
    assert re.fullmatch("study.yaml: hyperparameters: mixup and cutmix .* teacher.logits: auto", refused)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("osakd_weight: 1.0\n  osakd_neighbors: 128", "osakd_neighbors: 128 of a batch of 128, .* 127 others; .*"),
        ("osakd_weight: {type: float, low: 0.0, high: 1.0}\n  osakd_neighbors: {type: int, low: 5, high: 200}",
         "osakd_neighbors: 200 of a batch of 128, .*"),
        ("frozen_blocks: 3", "frozen_blocks: .*init: teacher_prefix, or 0"),
        ("labels_alone: 1.0", r"labels_alone: 1.* from 0 to 0\.9"),
        ("foster_beta: 1.0", r"foster_beta: 1.* from 0 to 0\.99999"),
        ("rtk_keys: 0", "rtk_keys: 0 .* from 1 to 9"),
        ("osakd_neighbors: 2.5", r"osakd_neighbors: 2\.5 .*whole.*"),
        ("objective: fosters", "objective: 'fosters' .*did you mean foster.*"),
    ],
)  # fmt: skip
def test_settings_that_cannot_go_together(settings: str, message: str) -> None:
    text = DIGITS.replace("  width: 0.5\n", f"  width: 0.5\n  {settings}\n")
    assert re.fullmatch(rf"study.yaml: hyperparameters(: |\.){message}", faults_of(text))


def test_labels_alone_need_an_epoch_before_them() -> None:
    text = DIGITS.replace("  width: 0.5\n", "  width: 0.5\n  labels_alone: 0.5\n")
    (epochs,) = [line for line in DIGITS.splitlines() if line.startswith("training:")]
    assert parse_study(text, source="-").hyperparameters.highest("labels_alone") == 0.5
    refused = faults_of(text.replace(epochs, "training: {epochs: 1}"))
    assert re.fullmatch("study.yaml: hyperparameters: labels_alone: training.epochs is 1, .*more epochs", refused)


def test_weights_of_a_misspelt_student_are_not_left_out() -> None:
    text = (
        "name: few\ndataset: {name: digits}\nstudent: {weights: {timm/lcnet_05: mine.pt}}\n"
        "hyperparameters: {temperature: 2, alpha: 0.5, overlay_probability: 0, overlay_strength: 0.5, "
        "learning_rate: 0.1, architecture: timm/lcnet_050, init: pretrained}\n"
    )
    with pytest.raises(StudyFileError, match=r"timm/lcnet_05'.*did you mean timm/lcnet_050"):
        parse_study(text, source="few")
    for others in ("timm/lcnet_050: a.pt, torchvision/resnet18: b.pt", "torchvision/resnet18: b.pt"):
        assert parse_study(text.replace("timm/lcnet_05: mine.pt", others), source="few").student.weights


def test_several_teachers_have_no_one_set_of_blocks() -> None:
    (own,) = [line for line in DIGITS.splitlines() if line.startswith("teacher:")]
    text = DIGITS.replace(own, "teacher: {checkpoint: [a.pt, b.pt]}")
    several = parse_study(text, source="-")
    assert (several.teacher.members, several.teacher.checkpoints) == (2, ("a.pt", "b.pt"))
    assert study_from_json(several.model_dump_json(), source="-") == several
    refused = faults_of(text.replace("  width: 0.5\n", "  width: 0.5\n  hint_weight: 1.0\n"))
    assert re.fullmatch("study.yaml: hyperparameters: hint_weight: 2 teachers .*", refused)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"no study file .*/nowhere\.yaml"):
        read_study(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=f"{tmp_path} is a folder"):
        read_study(tmp_path)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: Zürich\n".encode("latin-1"))
    with pytest.raises(StudyFileError, match=r"latin\.yaml .* UTF-8 .* 7\b"):
        read_study(path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + DIGITS.replace("\n", "\r\n").encode())
    assert read_study(path) == parse_study(DIGITS, source="-")


def test_the_database_copy_is_checked_as_the_file_is() -> None:
    study = parse_study(DIGITS, source="-")
    assert study_from_json(study.model_dump_json(), source="database") == study
    with pytest.raises(StudyFileError, match=r"^database: n_trials: 0 .* 1$"):
        study_from_json(json.dumps({**study.model_dump(mode="json"), "n_trials": 0, "controls": []}), source="database")


def test_a_study_cannot_be_changed() -> None:
    study = parse_study(DIGITS, source="-")
    with pytest.raises(ValueError, match="frozen"):
        study.n_trials = 3  # type: ignore[misc]


def test_the_schema_knows_the_names_of_data_sets() -> None:
    (plain, families) = Study.model_json_schema()["$defs"]["DatasetConfig"]["properties"]["name"]["anyOf"]
    assert {"digits", "folder"} <= set(plain["enum"])
    for name in ("torchvision/DTD", "huggingface/me/animals", "my_data:give"):
        assert name not in plain["enum"]
        assert re.search(families["pattern"], name)
    assert not re.search(families["pattern"], "cifar")


def test_the_schema_has_every_key_with_its_help() -> None:
    schema = Study.model_json_schema()
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["required"] == ["name", "dataset", "hyperparameters"]
    unexplained = [
        f"{name}.{key}"
        for name, section in {**schema["$defs"], "Study": schema}.items()
        for key, field in section.get("properties", {}).items()
        if "description" not in field and "const" not in field and "$ref" not in field and "oneOf" not in field
    ]
    assert [name for name in unexplained if not name.startswith(("Execution.", "Provenance."))] == []


def test_a_metric_that_is_not_known_is_named() -> None:
    assert re.fullmatch(
        'study.yaml: metric: "f1" is not one of accuracy, balanced_accuracy, macro_f1.*',
        faults_of(DIGITS + "metric: f1\n"),
    )
    assert parse_study(DIGITS + "metric: macro_f1\n", source="-").metric == "macro_f1"
