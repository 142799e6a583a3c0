"""Paths and names are what was typed, whatever Hydra would have read in them; and the folders of a sweep's jobs."""

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from running.commands.train import train
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config, path_of, to_dict
from running.config.job_names import excluded_keys, job_name
from running.config.path_and_name_settings import check_name
from running.config.quote_for_hydra import quote_text_settings, unquote_text_settings

SETTINGS = ["name", "data_dir", "+revision", "run", "tokenizer.name", "logger.project", "sources.local.path", "output"]


def read(argument: str) -> Any:
    """What Hydra reads of an argument that a shell has passed on."""
    (quoted,) = quote_text_settings([argument])
    assert quote_text_settings([quoted]) == [quoted]  # as a sweep passes it on to its jobs
    value: Any = OverridesParser.create().parse_override(quoted).value()
    return OmegaConf.to_container(OmegaConf.create([value]), resolve=True)[0]


@pytest.mark.parametrize("setting", SETTINGS)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@example(text="2025_11_28")
@example(text="1e3")
@example(text="-.5")
@example(text="true")
@example(text='é="1", it\'s')
@example(text="a,b")
@example(text="[x]")
@example(text=" ${")
def test_a_name_or_path_is_the_text_that_was_typed(setting: str, text: str) -> None:
    for_hydra = text.lower() == "null" or text[0] in "~\"'{" or re.search(r"\$\{.+\}", text)
    assert for_hydra or read(f"{setting}={text}") == text


def test_the_config_has_the_name_that_was_typed() -> None:
    (argument,) = quote_text_settings(["name=2025_11_28"])
    check_command_line("train", [argument])
    config = compose_config("train", [argument])
    assert (config["name"], config["run_dir"]) == ("2025_11_28", "runs/2025_11_28")


def test_what_is_left_to_hydra() -> None:
    assert read("init_from=null") is None
    assert read("init_from='a b'") == "a b"
    assert read("experiment=1e3") == "1e3"
    assert read("runs=[runs/1e3,2025_1]") == ["runs/1e3", "2025_1"]
    assert read("runs=[runs/it's,runs/on]") == ["runs/it's", "runs/on"]
    assert read("runs=['runs/a,b',runs/on]") == ["runs/a,b", "runs/on"]
    assert read("runs=é,2025_1") == ["é", "2025_1"]
    assert quote_text_settings(["runs_dir=${oc.env:SCRATCH}/runs", "max_steps=1_000", "--config-dir=1e3"]) == [
        "runs_dir=${oc.env:SCRATCH}/runs",
        "max_steps=1_000",
        "--config-dir=1e3",
    ]


def test_commas_separate_the_choices_of_a_sweep() -> None:
    quoted = quote_text_settings(["-m", "init_from=runs/é,2025_1,~/x", "name=a,b", "model=micro,1e3"])
    assert quoted[1:] == [f'init_from="runs/é","2025_1",{Path.home()}/x', 'name="a,b"', 'model=micro,"1e3"']


def test_the_home_folder_is_meant_by_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read("data_dir=~/data") == "/home/me/data"
    assert read("runs=[~/a,~nobody_at_all/b]") == ["/home/me/a", "~nobody_at_all/b"]
    assert read("name=~x") == "~x"
    config = OmegaConf.create({"data_dir": "~", "name": "~", "sources": {"local": {"path": "~/x"}}, "runs": ["~/y"]})
    assert to_dict(config) == {
        "data_dir": "/home/me",
        "name": "~",
        "sources": {"local": {"path": "/home/me/x"}},
        "runs": ["/home/me/y"],
    }
    assert path_of({"run": "~/r"}, "run") == Path("/home/me/r")


def test_a_prompt_of_a_sweep_stays_as_it_is() -> None:
    for prompt in ("null", 'Say "a", it\'s ${b}\\', "1e3"):
        (quoted,) = quote_text_settings([f"prompt={prompt}"])
        assert unquote_text_settings(quoted) == f"prompt={prompt}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/tmp/x", "a//b", "a/", "a\nb", "x" * 201, 20251128, None]
)
def test_a_name_that_is_no_folder_below_its_own_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^name ") as refusal:
        check_name("name", name)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["2025_11_28", "tests/my run", "ünï=1,b", "...", "x" * 200])
def test_other_names_are_taken(name: str) -> None:
    check_name("name", name)


def test_a_name_that_leaves_its_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("..", "", "a/../../x"):
        with pytest.raises(ValueError, match=r"name is .*: it must name a folder"):
            train({"name": name, "run_dir": f"{tmp_path}/{name}"})
    with pytest.raises(ValueError, match=r"tokenizer\.name is '\.\./x': it must name a folder"):
        check_command_line("prepare", ["tokenizer.name=../x"])
    assert not list(tmp_path.iterdir())


def names_of(*arguments: str) -> list[str]:
    """The folders of the jobs of a sweep over one setting."""
    axis, *fixed = OverridesParser.create().parse_overrides(quote_text_settings(["-m", *arguments])[1:])
    excluded = OverridesParser.create().parse_override(excluded_keys(fixed, [axis])).value()
    tasks = [[f"{axis.get_key_element()}={choice}", *arguments[1:]] for choice in axis.sweep_string_iterator()]
    job = {"config": {"override_dirname": {"exclude_keys": excluded}}, "num": 0}
    return [job_name(OmegaConf.create({"job": job, "overrides": {"task": task}})) for task in tasks]


def test_the_folders_of_jobs_are_unique_and_short() -> None:
    assert names_of("seed=1,2", "max_steps=3") == ["seed=1", "seed=2"]
    assert names_of("curriculum=study/abrupt,study/ramp") == ["curriculum=study_abrupt", "curriculum=study_ramp"]
    assert names_of('+x="[1]","[2]"') == ["+x=__1__", "+x=__2__"]
    for axis in ("init_from=a/b,a_b,a@b", "+x='a b',\"a_b\",a_b,[a b]", "callbacks.samples.prompts=['a?'],['a!']"):
        names = names_of(axis)
        assert len({*names}) == len(names) > 1
        assert all(re.fullmatch(r"[\w.,=+-]+", name) for name in names)
    assert names_of("+x='a b',a_b") == names_of('+x="a b",a_b')  # the same jobs, quoted otherwise
    long = names_of(f"init_from=runs/{'é' * 150}/a,runs/{'é' * 150}/b,c")
    assert len({*long}) == 3
    assert long[2] == "init_from=c"
    assert all(150 < len(os.fsencode(name)) <= 200 for name in long[:2])


@pytest.mark.parametrize("text", ["-.5", "+.5", ".5", "-.5e-3", ".5e3", "-1.e3", "1_000.5"])
def test_a_number_in_a_file_is_a_number(text: str) -> None:
    """YAML takes some of them for texts."""
    content = f"optimizer: {{lr: {text}}}\nprompt: '{text}'\nname: '{text}'\nstop: ['{text}']"
    assert to_dict(OmegaConf.load(io.StringIO(content))) == {
        "optimizer": {"lr": float(text)},
        "prompt": text,
        "name": text,
        "stop": [text],
    }
