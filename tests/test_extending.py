"""The examples of docs/extending.md: custom components train, are planned, are verified, generate, and define the run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_lightning.jsonl_reader import read_rows
from running.commands.prepare import prepare
from running.config.compose import compose_config
from running.config.own_imports import check_imports, import_parts
from running.config.registered_targets import REGISTERED_TARGETS
from running.config.run_config import RunConfig
from tests.conftest import ROOT, TINY, start, start_command

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODULES = dict(re.findall(r"```py\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
(SOURCE_CONFIG,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "corpus:" in text]
NAMED = "+imports=[my_norm,my_feed_forward,my_position,my_attention,my_optimizer,my_schedule,my_policy,my_callback]"
MODEL = ["model.norm=scale", "model.feed_forward=gated", "model.position=sinusoidal", "model.attention=soft_cap"]
OPTIMIZER = ["optimizer._target_=my_optimizer.Lion", "~optimizer.eps", "~optimizer.fused", "schedule.shape=squared"]
POLICY = ["+curriculum.policy.name=temperature", "+curriculum.policy.last=5"]
CALLBACK = ["+callbacks.weight_norm._target_=my_callback.WeightNorm", "+callbacks.weight_norm.every=2"]
PARTS = [NAMED, *MODEL, *OPTIMIZER, *POLICY]
SHORT = [
    "curriculum=constant",
    "curriculum.keyframes.start.weights={base:0.9,target:0.1}",
    "max_steps=4",
    "val_every=4",
]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with every module of the page, on PYTHONPATH."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def overrides(tiny_data: Path, tmp_path: Path, modules: Path) -> list[str]:
    return [*TINY, *SHORT, "name=mine", f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'runs'}"]


def sentence_of(answer: "subprocess.CompletedProcess[str]") -> str:
    """The error message of a refused command, which is one sentence."""
    assert answer.returncode == 1
    (sentence,) = answer.stderr.splitlines()
    return sentence.removeprefix("error: ")


def test_the_page_has_an_example_of_each_part() -> None:
    calls = re.findall(r"^def (register_\w+)", (ROOT / "running" / "registration.py").read_text(), re.MULTILINE)
    used = [re.findall(r"^(register_\w+)\(", text, re.MULTILINE) for text in MODULES.values()]
    assert sorted(calls) == sorted(call for calls_of_module in used for call in calls_of_module)


def test_the_page_names_the_settings_of_the_default_optimizer() -> None:
    (named,) = re.findall(r"settings of the default optimizer, AdamW: (.*?)\.", PAGE)
    settings = compose_config("train", [])["optimizer"]
    assert re.findall(r"`(\w+)`", named) == [key for key in settings if key != "_target_"]


def test_the_examples_train_and_generate(overrides: list[str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    done = start([*overrides, *PARTS, *CALLBACK])
    assert done.returncode == 0, done.stderr
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/weight_norm" in row] == [2, 4]
    drawn = [row["mix/planned/pydoc"] for row in rows if "mix/planned/pydoc" in row]
    assert 0.05 < drawn[0] < drawn[-1]  # the keyframe's shares are 0.45, 0.45, 0.05 and 0.05
    assert "imports:\n- my_norm\n- my_feed_forward\n" in (run / "config.yaml").read_text()
    digests = json.loads((run / "environment.json").read_text())["imports"]
    assert len(digests) == 8
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests.values())
    said = start_command("generate.py", [f"run={run}", "prompt=class", "max_new_tokens=3", NAMED])
    assert said.returncode == 0, said.stderr
    assert "must be one of" in start_command("generate.py", [f"run={run}", "prompt=class"]).stderr


def test_a_run_is_planned_with_its_own_parts(overrides: list[str], tmp_path: Path) -> None:
    planned = start_command("plan.py", [*overrides, *PARTS, "max_steps=40", "plan.device=cpu"])
    assert planned.returncode == 0, planned.stderr
    trained = start([*overrides, *PARTS])
    plan = json.loads((tmp_path / "runs" / "mine" / "plan.json").read_text())
    assert f"{plan['parameters']:,} parameters" in trained.stdout
    tenths = plan["sources"]["pydoc"]["tenths"]
    assert tenths[0] < 0.15 < tenths[-1]  # the keyframe's share is 0.05


def test_a_run_with_its_own_parts_resumes_exactly(overrides: list[str]) -> None:
    options = ["model.dropout=0", "verify.steps=4", "verify.workers=1", "verify.devices=1", "trainer.accelerator=cpu"]
    verified = start_command("verify.py", [*overrides, *PARTS, *options])
    assert verified.returncode == 0, verified.stderr
    assert "verified: the resumed runs equal the uninterrupted run." in verified.stdout


def test_the_modules_define_the_run(overrides: list[str], tmp_path: Path, modules: Path) -> None:
    assert start([*overrides, "+imports=[my_norm]"]).returncode == 0
    record = tmp_path / "runs" / "mine" / "environment.json"
    digest = json.loads(record.read_text())["imports"]["my_norm"]
    longer = [*overrides, "max_steps=6"]
    assert "was started with imports=['my_norm'], and now it is None" in sentence_of(start(longer))
    (modules / "my_norm.py").write_text(MODULES["my_norm"] + "\n# another version\n")
    done = start([*longer, "+imports=[my_norm]"])
    assert done.returncode == 0, done.stderr
    now = json.loads(record.read_text())["imports"]["my_norm"]
    assert now != digest
    assert f"imports.my_norm={now}" in done.stdout
    assert f"was {digest}" in done.stdout


def test_a_policy_that_gives_other_weights_is_not_resumed(overrides: list[str], modules: Path) -> None:
    options = [*overrides, "+imports=[my_policy]", *POLICY, "callbacks.checkpoints.every=2"]
    assert start([*options, "+callbacks.end._target_=callbacks.KillAtStep", "+callbacks.end.at=3"]).returncode == -9
    (modules / "my_policy.py").write_text(MODULES["my_policy"].replace("1 / (first", "2 / (first"))
    refused = sentence_of(start(options))
    assert re.match(
        r"curriculum\.policy temperature returns different weights than when .*step_00000002\.pt was sav", refused
    )
    later = MODULES["my_policy"].replace("* progress", "* (progress if progress < 0.5 else 1)")
    later = later.replace("def temperature", "def sudden").replace('"temperature", temperature', '"sudden", sudden')
    (modules / "my_policy.py").write_text(MODULES["my_policy"] + later)
    done = start([option.replace("name=temperature", "name=sudden") for option in options])
    assert done.returncode == 0, done.stderr


def test_the_source_reader_prepares_what_is_trained_on(overrides: list[str], tmp_path: Path, modules: Path) -> None:
    notebooks, configs, data = tmp_path / "my_notebooks", tmp_path / "my_configs" / "source", tmp_path / "data"
    notebooks.mkdir()
    configs.mkdir(parents=True)
    for n in range(12):
        cells = [{"source": [f"# Notebook {n}\n", "It counts."]}, {"source": ["\n".join(map(str, range(n, 90)))]}]
        (notebooks / f"{n:02}.ipynb").write_text(json.dumps({"cells": cells}))
    (configs / "notebooks.yaml").write_text(SOURCE_CONFIG.replace("my_notebooks", str(notebooks)))
    command = ["source=notebooks", "tokenizer=gpt2", f"data_dir={data}", "+imports=[my_reader]"]

    def again(*more: str) -> "subprocess.CompletedProcess[str]":
        return start_command("prepare.py", [*command, *more], "--config-dir", str(configs.parent))

    assert "prepared in" in (done := again("workers=2")).stdout, done.stderr
    information = json.loads((data / "gpt2" / "notebooks" / "source.json").read_text())
    assert information["origin"]["_target_"] == "my_reader.notebooks"
    assert information["origin"]["folder"] == str(notebooks)
    assert re.fullmatch("[0-9a-f]{12}", information["origin"]["reader_digest"])
    assert sum(split["documents"] for split in information["splits"].values()) == 12
    assert "already in" in again().stdout
    assert "was made with folder=" in sentence_of(again(f"sources.notebooks.corpus.folder={tmp_path}"))
    (modules / "my_reader.py").write_text(MODULES["my_reader"] + "\n# another version\n")
    assert "was made with reader_digest=" in sentence_of(again())
    sizes = ["tokenizer=gpt2", "tokenizer.name=gpt2", "tokenizer.model_vocab_size=50304", f"data_dir={data}"]
    mix = ["curriculum.keyframes.start.weights={base:0,target:0}", "+curriculum.keyframes.start.weights.notebooks=1"]
    shutil.rmtree(data / "gpt2" / "notebooks")
    missing = [*overrides, *sizes, *mix, "+imports=[my_reader]", "data.prepare=missing"]
    trained = start(missing, "--config-dir", str(configs.parent))
    assert trained.returncode == 0, trained.stderr
    assert (data / "gpt2" / "notebooks" / "source.json").is_file()


REGISTER = "import running.registration as r\n"
BROKEN = {
    "no_such_module": (
        "",
        "there is no module no_such_module (ModuleNotFoundError: No module named 'no_such_module'): install its package, or add "
        "its folder to PYTHONPATH.",
    ),
    "divides": (
        "x = 1\n1 / 0\n",
        "divides raises an error when it is imported (divides.py, line 2: ZeroDivisionError: division by zero).",
    ),
    "no_python": ("def (\n", "no_python raises an error when it is imported (SyntaxError: "),
    "needs_more": (
        "import no_such_library\n",
        "needs_more raises an error when it is imported (needs_more.py, line 1: ModuleNotFoundError: No module named 'no_such",
    ),
    "twice": (
        f"{REGISTER}r.register_norm('layernorm', print)\n",
        "twice raises an error when it is imported (twice.py, line 2: ValueError: norm 'layernorm' is already registered: "
        "register yours under another name).",
    ),
    "a_lambda": (
        f"{REGISTER}r.register_source_reader(lambda: [])\n",
        "a_lambda raises an error when it is imported (a_lambda.py, line 2: ValueError: source reader a_lambda.<lambda>: it must "
        "be a class or function at the top level of a module).",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, sentence = BROKEN[name]
    if text:
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(f"imports: {sentence}")):
        import_parts([name])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["+imports=my_norm"],
            "imports is 'my_norm': it must be a list of module names, such as +imports=[my_package].",
        ),
        (
            ["+imports=[nowhere]"],
            "imports: there is no module nowhere (ModuleNotFoundError: No module named 'nowhere'): ",
        ),
        (
            ["+imports=[my_norm]", "model.norm=scales"],
            "model.norm is 'scales': it must be one of layernorm, rmsnorm, scale; a part of your own needs +imports=",
        ),
        (
            ["+imports=[my_schedule]", "schedule.shape=square"],
            "schedule.shape is 'square': it must be one of cosine, linear, wsd, constant, squared.",
        ),
        (
            ["+imports=[my_optimizer]", "optimizer._target_=my_optimizer.Tiger"],
            "_target_=my_optimizer.Tiger may not be called from a config: it must be an optimizer from torch.optim or "
            "bitsandbytes.optim or gpt_lightning.optim, or registered: my_optimizer.Lion.",
        ),
        (
            ["+imports=[my_policy]", "+curriculum.policy.name=heat"],
            "curriculum.policy.name is 'heat': it must be one of temperature.",
        ),
        (["curriculum.policy.name=heat"], "curriculum.policy has no name yet: add it with +curriculum.policy.name=…."),
    ],
)
def test_a_misspelt_name_is_one_sentence(overrides: list[str], settings: list[str], sentence: str) -> None:
    assert sentence_of(start([*overrides, *settings])).startswith(sentence)


def bytes_() -> Iterator[bytes]:
    yield b"text"


def robot() -> Iterator[list[dict[str, str]]]:
    yield [{"role": "robot", "content": "x"}]


def fails() -> Iterator[str]:
    yield "text"
    raise KeyError("text")


def needs(folder: str) -> Iterator[str]:
    yield folder


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("my.bytes_", "document 1: the document is of type bytes: it must be a text or a list of messages. "),
        (
            "my.robot",
            "document 1: message 1 in 'messages' lacks a valid role: it must be one of system, user, assistant.",
        ),
        ("my.fails", "the source reader my.fails failed after 1 documents (KeyError: 'text')."),
        ("my.needs", "corpus: the arguments of my.needs do not fit: missing a required argument: 'folder'."),
        (
            "my.reads",
            "_target_=my.reads may not be called from a config: it must be a corpus from data_modules.corpora, or registered: "
            "my.bytes_, my.robot, my.fails, my.needs. To use your own, register it in a module and type +imports=[my_module].",
        ),
    ],
)
def test_what_is_wrong_with_a_source_reader_is_one_sentence(
    target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for read in (bytes_, robot, fails, needs):
        monkeypatch.setitem(REGISTERED_TARGETS["source reader"], f"my.{read.__name__}", read)
    config = compose_config("prepare", ["source=stdlib", "tokenizer=gpt2", f"data_dir={tmp_path}", "workers=1"])
    config["sources"]["stdlib"]["corpus"] = {"_target_": target}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        prepare(config)


def test_a_source_of_a_file_has_all_settings(tmp_path: Path) -> None:
    config = compose_config("prepare", ["source=stdlib", "tokenizer=gpt2", f"data_dir={tmp_path}"])
    config["sources"] = {"half": {"hub": None}}
    with pytest.raises(ValueError, match=r"sources\.half\.fields has no value: conf/source has examples to copy\."):
        prepare(config)


def test_a_module_that_reads_a_source_does_not_load_torch(modules: Path) -> None:
    script = "import my_reader, my_policy, sys; assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": f"{modules}:{ROOT}"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_a_registered_callback_may_stand_in_a_file(overrides: list[str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    node = "callbacks: {weight_norm: {_target_: my_callback.WeightNorm, every: 2}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\ndefaults: [quickstart]\n{node}")
    flags = ["--config-dir", str(tmp_path)]
    assert "may not be called from a config" in sentence_of(start(["experiment=mine", *overrides], *flags))
    done = start(["experiment=mine", *overrides, "+imports=[my_callback]"], *flags)
    assert done.returncode == 0, done.stderr


def test_a_config_file_names_no_module() -> None:
    assert "json.tool" not in sys.modules
    with pytest.raises(ValueError, match=r"a config file may not import a module\. Type \+imports=\[json\.tool\]"):
        check_imports({"imports": ["json.tool"]})
    with pytest.raises(ValueError, match="a config file may not import a module"):
        RunConfig.of({"imports": ["json.tool"], "name": "x", "run_dir": "x"})
    assert "json.tool" not in sys.modules
