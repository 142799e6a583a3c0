"""Command lines of sweeps: axes of files and of what is typed, refused before the first job where they cannot be."""

import re
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import command_runner
from data_modules.corpora.record_fields import RecordFields
from gpt_lightning.file_locks import exclusive_lock
from running.config import command_line_check
from running.config.command_line_check import check_command_line, extra_hydra_settings
from running.config.compose import CONF, compose_config
from running.config.quote_for_hydra import quote_text_settings
from running.config.sweep_axis_choices import count_jobs
from running.sweeps.sweep_job import open_multirun
from tests.conftest import start, start_command

OPTUNA = "hydra/sweeper=optuna"


@pytest.mark.parametrize("source", ["local", "alpaca", "smol_smoltalk"])
def test_a_setting_with_parts_is_set_part_by_part(source: str) -> None:
    with pytest.raises(
        ValueError, match=rf"sources\.{source}\.fields cannot be set as a whole: set sources\.{source}\.fields\.\w+=…"
    ) as refusal:
        check_command_line("prepare", [f"source={source}", f"sources.{source}.fields={{question: question}}"])
    assert "did you mean" not in str(refusal.value)
    instead = str(refusal.value).rpartition(", type ")[2].rstrip(".").split()
    RecordFields(compose_config("prepare", [f"source={source}", *instead])["sources"][source]["fields"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["experiment=lr_sweep"],
            "the config is a sweep, over optimizer.lr and seed: add -m after the script's name, or choose one value "
            "(optimizer.lr=…).",
        ),
        (["experiment=lr_sweep", "seed=1"], "the config is a sweep, over optimizer.lr: add -m"),
        (
            ["-m", "experiment=quickstart,lr_sweep"],
            "over optimizer.lr and seed: a config with axes cannot itself be one of several choices.",
        ),
        (
            ["-m", "experiment=lr_sweep", "optimizer.lr=1,fast"],
            "optimizer.lr is 'fast': it must be a number like 0.002.",
        ),
        (
            ["-m", "experiment=lr_sweep", "optimiser.lr=1,2"],
            "there is no setting optimiser.lr: did you mean optimizer.lr?",
        ),
        (["-m", "experiment=lr_sweep", "seed=1,2,1"], "seed=1 occurs twice: each choice must be different"),
        (["-m", "optimizer.lr=1e-3,0.001"], "optimizer.lr=0.001 occurs twice"),
        (
            ["-m", "experiment=lr_search"],
            "optimizer.lr=tag(log, interval(5e-4, 5e-2)) is an interval, which needs a search: add hydra/sweeper=optuna, or",
        ),
        (["-m", "optimizer.lr=interval(1e-3,1e-2)"], "is an interval, which needs a search: add hydra/sweeper=optuna"),
        (["-m", OPTUNA, "optimizer.lrr=interval(1e-3,1e-2)"], "there is no setting optimizer.lrr"),
        (
            ["-m", "model=glob(gpt3*)"],
            "model=glob(gpt3*) matches no choice, so the sweep has no jobs. Choose from conf/model: gpt2_124m, gpt2_1558m, ",
        ),
        (["-m", "seed=range(3,1)"], "seed=range(3,1) matches no choice, so the sweep has no jobs."),
        (
            ["-m", "gradient_clip=range(0.1,0.3,0.1)"],
            "gradient_clip=range(0.1,0.3,0.1) gives 2 values, 0.1, 0.2, without its stop 0.3: type the values that you mean",
        ),
        (
            ["-m", "gradient_clip=range(0.1,0.9,0.2)"],
            "type the values that you mean, such as gradient_clip=0.1,0.3,0.5,0.7",
        ),
        (["--config-dir", "nowhere"], "--config-dir nowhere does not exist: it must be a folder with configs."),
        (["--experiment", "quickstart"], "settings are written without --, for example experiment=quickstart."),
        (["-m", "gradient_clip=range(0,1,1e-3)"], "gives 1000 values, 0, 0.001, …, 0.999, without its stop 1"),
    ],
)
def test_a_sweep_that_cannot_be_costs_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        check_command_line("train", arguments)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment=lr_sweep", "seed=1", "optimizer.lr=1e-3"],
        ["-m", "experiment=lr_sweep", "seed=1", "optimizer.lr=1e-3"],
        ["-m", "experiment=lr_sweep", "model.n_layers=1,2"],
        ["-m", "model=glob(gpt2_5*)", "gradient_clip=range(0,0.4,0.1)", "seed=range(1,3)"],
        ["-m", "experiment=mix_sweep", "curriculum.keyframes.settled.at=0.7,0.8"],
        ["-m", OPTUNA, "experiment=lr_search"],
        ["-m", OPTUNA, "hydra/sweeper/sampler=random", "optimizer.lr=interval(1e-3,1e-2)", "model.n_layers=range(1,4)"],
    ],
)
def test_what_can_be_is_a_multirun_or_none(arguments: list[str]) -> None:
    run, multirun = check_command_line("train", arguments)
    assert (multirun is None) == (arguments[0] != "-m") == (run is not None)


@pytest.mark.parametrize("arguments", [[], ["--config-dir", "{}", "experiment=mine"]])
def test_a_command_gets_what_hydra_composes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the checks of its command line have composed it."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [quickstart]\nseed: 4\n")
    settings = ["curriculum=gradual", "+curriculum.mixes.base.pydoc=1", "optimizer.lr=1e-3", "~callbacks.samples"]
    got = []

    @hydra.main(version_base=None, config_path=str(CONF), config_name="train")
    def main(config: DictConfig) -> None:
        task = OmegaConf.to_container(HydraConfig.get().overrides.task)
        got.append((OmegaConf.to_yaml(config), task, HydraConfig.get().mode))

    monkeypatch.setattr("sys.argv", ["train.py", *(part.format(tmp_path) for part in arguments), *settings])
    main()
    command_runner.run_command_line(main, "train")
    assert got[0] == got[1]
    assert set(settings) <= set(got[0][1])


def test_each_choice_of_a_file_is_composed_before_the_first_job(tmp_path: Path) -> None:
    def refused(axes: str) -> str:
        (tmp_path / "experiment").mkdir(exist_ok=True)
        text = f"# @package _global_\ndefaults: [quickstart]\nhydra: {{sweeper: {{params: {{{axes}}}}}}}"
        (tmp_path / "experiment" / "mine.yaml").write_text(text)
        with pytest.raises(ValueError, match=r".") as refusal:
            check_command_line("train", ["--config-dir", str(tmp_path), "-m", "experiment=mine"])
        assert len(str(refusal.value).splitlines()) == 1
        return str(refusal.value)

    assert refused('optimizer.lrr: "1e-3,2e-3"') == "there is no setting optimizer.lrr: did you mean optimizer.lr?"
    assert refused('optimizer.lr: "1e-3,fast"') == "optimizer.lr is 'fast': it must be a number like 0.002."
    assert refused('model: "micro,macro"').startswith("model=macro: there is no such choice")
    assert "needs a search" in refused('optimizer.lr: "interval(1,2)"')
    for hydras in ("hydra.job.name", "hydra/launcher", "+hydra.callbacks", "~hydra.job", "model@hydra.job"):
        assert "is set by a config file" in refused(f'"{hydras}": "a,b"')
    assert "hydra" in refused('hydra: "{job: {name: a}},{job: {name: b}}"')
    assert "hydra" in refused("hydra: {job: {name: evil}}")
    assert "may not be called" in refused('optimizer._target_: "os.mkdir,os.rmdir"')


def test_a_setting_that_is_typed_twice_is_an_axis_if_it_is_one_at_last() -> None:
    for settings, fixed in ((["seed=1", "seed=2,3"], "[]"), (["seed=2,3", "seed=1"], "['seed']")):
        config = check_command_line("train", ["-m", *settings]).multirun
        assert config is not None
        assert extra_hydra_settings(settings, config) == [f"hydra.job.config.override_dirname.exclude_keys={fixed}"]


def test_the_axes_of_a_file_name_its_jobs_be_it_by_one_choice() -> None:
    """Else seed=2 after seed=1 would be called what that was."""
    settings = ["experiment=lr_sweep", "seed=2", "model.n_layers=3"]
    config = check_command_line("train", ["-m", *settings]).multirun
    assert config is not None
    excluded = "hydra.job.config.override_dirname.exclude_keys=['experiment','model.n_layers']"
    assert extra_hydra_settings(settings, config) == [excluded]


def test_a_search_is_told_what_makes_it_the_same_again() -> None:
    settings = [OPTUNA, "experiment=lr_search", "jobs_at_once=3", "seed=5"]
    config = check_command_line("train", ["-m", *settings]).multirun
    assert config is not None
    besides = extra_hydra_settings(settings, config)
    assert besides[1:] == [
        "hydra.sweeper.n_jobs=${jobs_at_once}",
        "hydra.sweeper.max_failure_rate=1.0",
        "hydra.sweeper.sampler.seed=${seed}",
    ]
    again = check_command_line("train", ["-m", *settings, *besides]).multirun
    assert again is not None
    sweeper = again.hydra.sweeper
    assert (sweeper.n_jobs, sweeper.sampler.seed, sweeper.max_failure_rate) == (3, 5, 1.0)
    typed = [*settings, "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler.seed=1"]
    assert extra_hydra_settings(typed, config)[1:] == ["hydra.sweeper.max_failure_rate=1.0"]


def test_a_job_of_slurm_whose_time_is_over_is_queued_again() -> None:
    settings = ["hydra/launcher=submitit_slurm", "seed=1,2"]
    config = check_command_line("train", ["-m", *settings]).multirun
    assert config is not None
    assert "hydra.launcher.max_num_timeout=100" in extra_hydra_settings(settings, config)
    typed = [*settings, "hydra.launcher.max_num_timeout=3"]
    assert len(extra_hydra_settings(typed, config)) == 1
    config.hydra.job.name = "evaluate"  # which would begin anew
    assert len(extra_hydra_settings(settings, config)) == 1


def test_a_search_needs_a_loss_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"hydra/sweeper=optuna is for train\.py: prepare\.py has no validation loss"):
        check_command_line("prepare", ["-m", OPTUNA, "source=c4,alpaca"])
    monkeypatch.setattr(command_line_check, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"hydra/sweeper=optuna needs a package: pip install -e '\.\[optuna\]'\."):
        check_command_line("train", ["-m", OPTUNA, "experiment=lr_search"])


def test_one_process_works_on_a_sweep(tiny_overrides: list[str], tmp_path: Path) -> None:
    grid = [*tiny_overrides, "experiment=lr_sweep", "seed=1"]
    with exclusive_lock(tmp_path / "runs" / "lr_sweep" / ".jobs"):
        answer = start(grid, "-m")
    assert answer.returncode == 1
    assert re.fullmatch(
        r"error: .*lr_sweep/\.jobs is being used by process \d+ on .*: wait until that process ends, or stop it\.\n",
        answer.stderr,
    )
    assert answer.stdout == ""


def test_what_is_typed_is_quoted_for_the_program_itself(tmp_path: Path) -> None:
    """In a process of its own, as it is the program's arguments that Hydra reads."""
    answer = start_command("report.py", [f"runs={tmp_path}/lr=0.1,seed=1"])
    assert answer.stderr.startswith(f"error: runs={tmp_path}/lr=0.1,seed=1 matches no run: ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("key", ["run", "runs", "mix_law", "held_out", "branch.run", "curriculum.ado.record"])
def test_the_path_of_a_sweeps_run_can_be_typed(key: str) -> None:
    path = "runs/sweep/curriculum=ado,seed=1"
    (quoted,) = quote_text_settings([f"{key}={path}"])
    (parsed,) = OverridesParser.create().parse_overrides([quoted])
    assert parsed.value() == path


def test_slurm_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = check_command_line(
        "train", ["-m", "hydra/launcher=submitit_slurm", "seed=1,2", f"runs_dir={tmp_path / 'runs'}"]
    ).multirun
    assert config is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs Slurm, but there is no srun here"), open_multirun("train", config):
        pass
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "is_said"), [([], True), (["seed=1"], True), (["seed=1,2"], False), (["experiment=lr_sweep"], False)]
)
def test_a_multirun_without_choices_says_so(
    arguments: list[str], is_said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = check_command_line("train", ["-m", *arguments, f"sweep_dir={tmp_path}"]).multirun
    assert config is not None
    with open_multirun("train", config):
        assert ("no setting has several choices, so this is one job" in capsys.readouterr().err) is is_said


@pytest.mark.parametrize("command", ["convert", "evaluate", "generate", "plan", "prepare", "report", "train", "verify"])
def test_what_hydra_writes_of_a_multirun_lies_in_a_folder_that_git_ignores(command: str) -> None:
    config = check_command_line(command, ["-m"]).multirun
    assert config is not None
    assert str(config.hydra.sweep.dir).startswith(("runs/", "data", "exported"))


@pytest.mark.parametrize(
    ("arguments", "n_jobs"),
    [
        (["experiment=lr_sweep"], 10),
        (["experiment=lr_sweep", "seed=1", "optimizer.lr=1e-3,2e-3", "model.n_layers=range(1,4)"], 6),
        (["model=glob(gpt2_5*)", "seed=1,2", "seed=3,4,5"], 3),
        ([OPTUNA, "optimizer.lr=interval(1e-3,1e-2)"], None),
    ],
)
def test_the_jobs_of_a_sweep_are_counted_before_the_first(arguments: list[str], n_jobs: int | None) -> None:
    config = check_command_line("train", ["-m", *arguments]).multirun
    assert config is not None
    assert count_jobs(config) == n_jobs


@pytest.mark.parametrize("typed", ["sources.local.splitt", "sources.loca.split"])
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_setting_of_the_chosen_source_is_suggested(typed: str, flags: list[str]) -> None:
    sentence = f"there is no setting {typed}: did you mean sources.local.split?"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        check_command_line("prepare", [*flags, "source=local", f"{typed}=tail"])


def test_what_is_a_group_elsewhere_is_not_suggested() -> None:
    with pytest.raises(ValueError, match=r"^there is no setting task: did you mean tasks\?$"):
        check_command_line("evaluate", ["task=hellaswag"])
