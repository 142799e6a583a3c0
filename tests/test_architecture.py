"""The rules of the house, read from its imports."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "command_runner",
    "convert",
    "evaluate",
    "generate",
    "plan",
    "prepare",
    "report",
    "train",
    "verify",
}
PACKAGES = (
    "analysis",
    "benchmarks",
    "callbacks",
    "data_modules",
    "documentation",
    "gpt_lightning",
    "mix_laws",
    "running",
)
FILES = sorted(
    [
        *(ROOT / f"{command}.py" for command in COMMANDS),
        *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")),
    ]
)
OURS = {*COMMANDS, *PACKAGES}
CALLED_BY_NOBODY = ("utils", "common", "helpers", "misc")
# The longest prefix decides: what a part of the house may import of the house, and which heavy libraries.
MAY_IMPORT = {
    "benchmarks": {
        "analysis",
        "benchmarks",
        "gpt_lightning.data_wait_profiler",
        "callbacks.mix_ledger",
        "callbacks.graceful_stop",
        "data_modules",
        "gpt_lightning",
        "command_runner",
        "running",
        "mix_laws",
        "torch",
        "lightning",
        "transformers",
    },
    "callbacks": {
        "callbacks",
        "analysis.hours_and_loss_from_sizes",
        "gpt_lightning",
        "data_modules",
        "torch",
        "lightning",
    },
    "data_modules": {"data_modules", "gpt_lightning.tokenizer", "torch", "lightning"},
    "data_modules.order": {"data_modules.order", "gpt_lightning.jsonl_reader"},
    "data_modules.shards": {"data_modules.shards", "gpt_lightning.tokenizer"},
    "data_modules.corpora": {
        "data_modules.corpora",
        "data_modules.shards",
        "gpt_lightning.bounded_yaml",
        "gpt_lightning.hub_dataset_config",
        "gpt_lightning.tokenizer",
    },
    "data_modules.preparation": {
        "data_modules.child_processes",
        "data_modules.corpora",
        "data_modules.preparation",
        "data_modules.shards",
        "gpt_lightning.console",
        "gpt_lightning.durable_files",
        "gpt_lightning.file_locks",
        "gpt_lightning.tokenizer",
    },
    "documentation": {
        "documentation",
        "callbacks",
        "data_modules.order.curriculum",
        "gpt_lightning.console",
        "gpt_lightning.model",
        "running.config",
        "running.evaluation.task_config",
    },
    "gpt_lightning": {"gpt_lightning", "torch", "lightning"},
    "gpt_lightning.convert": {
        "gpt_lightning.convert",
        "gpt_lightning.verified_checkpoint",
        "gpt_lightning.checkpoint_folder",
        "gpt_lightning.model",
        "gpt_lightning.model_path_check",
        "gpt_lightning.tokenizer",
        "torch",
    },
    "gpt_lightning.convert.transformers_code": {"torch", "transformers"},
    "gpt_lightning.evaluation": {
        "gpt_lightning.evaluation",
        "gpt_lightning.generation",
        "gpt_lightning.hub_dataset_config",
        "gpt_lightning.model",
        "gpt_lightning.tokenizer",
        "torch",
    },
    "gpt_lightning.lit_gpt": {
        "gpt_lightning.async_device_scalars",
        "gpt_lightning.loss_normalization",
        "gpt_lightning.model",
        "gpt_lightning.optim",
        "gpt_lightning.optimization_settings",
        "gpt_lightning.sharding",
        "torch",
        "lightning",
    },
    "gpt_lightning.model": {"gpt_lightning.model", "torch"},
    "gpt_lightning.console": set(),
    "gpt_lightning.hub_dataset_config": set(),
    "gpt_lightning.jsonl_reader": set(),
    "gpt_lightning.durable_files": {"gpt_lightning.console"},
    "gpt_lightning.file_locks": {"gpt_lightning.console", "gpt_lightning.durable_files"},
    "gpt_lightning.model.config": {"gpt_lightning.model.part_registry"},
    "gpt_lightning.model.part_registry": set(),
    "gpt_lightning.learning_rate_schedules": set(),
    "gpt_lightning.accelerator_and_precision_names": set(),
    "gpt_lightning.optim": {"gpt_lightning.optim", "gpt_lightning.learning_rate_schedules", "torch"},
    "gpt_lightning.optimization_settings": {"gpt_lightning.model", "gpt_lightning.optim", "torch"},
    "gpt_lightning.tokenizer": {"gpt_lightning.tokenizer"},
    "analysis": {
        "analysis",
        "data_modules.order.curriculum",
        "gpt_lightning.console",
        "gpt_lightning.early_end_file_names",
        "gpt_lightning.jsonl_reader",
        "gpt_lightning.setting_roles",
    },
    "mix_laws": {"mix_laws", "analysis", "gpt_lightning.console"},
    "gpt_lightning.model_path_check": set(),
    "gpt_lightning.early_end_file_names": set(),
    "gpt_lightning.setting_roles": set(),
    "analysis.comparison.model_size": {"gpt_lightning.model"},
    "running": {"running"},
    "running.registration": {"running.config", "data_modules", "gpt_lightning", "torch", "lightning"},
    "running.config": {
        "running.config",
        "analysis.callbacks_that_change_results",
        "analysis.hours_and_loss_from_sizes",
        "data_modules",
        "gpt_lightning",
        "torch",
        "lightning",
        "hydra",
        "omegaconf",
    },
    "running.training": {
        "running.config",
        "running.training",
        "analysis.callbacks_that_change_results",
        "analysis.hours_and_loss_from_sizes",
        "callbacks",
        "data_modules",
        "gpt_lightning",
        "torch",
        "lightning",
        "omegaconf",
    },
    "running.evaluation": {
        "running.config",
        "running.evaluation",
        "running.training",
        "analysis.comparison.evaluation_section",
        "data_modules",
        "gpt_lightning",
        "torch",
    },
    "running.sweeps": {
        "running.config",
        "running.sweeps",
        "running.training",
        "gpt_lightning",
        "mix_laws",
        "torch",
        "hydra",
        "omegaconf",
    },
    "running.commands": {"running", "analysis", "mix_laws", "data_modules", "gpt_lightning", "torch"},
}
MOST_LINES_OF_FILE = 300
MOST_LINES, MOST_PARAMETERS = 60, 6  # of a function; self and cls are not counted
# Numerics: their parameters are the arrays and the constants of a formula. transformers asks for those of its models.
MANY_PARAMETERS = {
    "benchmarks.gpu_day.loss_head.errors",
    "gpt_lightning.convert.transformers_code.modeling_gpt_lightning.GPTLightningConfig.__init__",
    "gpt_lightning.convert.transformers_code.modeling_gpt_lightning.GPTLightningForCausalLM.forward",
    "gpt_lightning.model.loss_head._CrossEntropySum.forward",
    "gpt_lightning.model.loss_head.cross_entropy_sum",
    "gpt_lightning.model.loss_kernel_triton._row_loss",
    "gpt_lightning.optim.muon.MuonAdamW.__init__",
    "mix_laws.batched_exponential_fit._steps",
}
# Names of composed settings. What a run recorded is called `recorded`, and may be read by key.
COMPOSED = {
    *("base", "callbacks", "config", "logger", "node", "nodes", "optimizer", "schedule", "settings"),
    *("source", "sources", "task", "tasks", "trainer"),
}
# modules that look up settings by key -> in which file
READ_BY_KEY = {
    "analysis.comparison.comparison": "config.yaml of a run of any version",
    "analysis.comparison.read_runs": "config.yaml and environment.json of a run of any version",
    "analysis.comparison.run": "config.yaml of a run of any version",
    "analysis.run_page": "environment.json of a run of any version",
    "data_modules.corpora.splits_from_dataset_card": "README.md of a dataset",
    "gpt_lightning.convert.tokenizer_files": "tokenizer_config.json of a model",
    "mix_laws.fit_data": "config.yaml of a run of any version",
    "running.commands.plan": "none: to be typed",
}
GUARDED = {*OURS, "torch", "lightning", "hydra", "omegaconf", "transformers"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def covered(name: str, allowed: set[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in allowed)


def test_imports_follow_the_directions() -> None:
    violations = []
    for path in FILES:
        if (module := module_name(path)) in COMMANDS:
            continue
        allowed = MAY_IMPORT[max((part for part in MAY_IMPORT if covered(module, {part})), key=len)]
        guarded = {name for name in imported_modules(path) if name.split(".")[0] in GUARDED}
        violations += [f"{module} imports {name}" for name in sorted(guarded) if not covered(name, allowed)]
    assert not violations, "\n".join(violations)


def test_file_holds_one_idea() -> None:
    violations = []
    for path in FILES:
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES_OF_FILE:
            violations.append(f"{module_name(path)} has {lines} lines")
        if path.stem in CALLED_BY_NOBODY:
            violations.append(f"{module_name(path)} does not say what it holds")
    assert not violations, "\n".join(violations)


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(its full name, the function) of every function and method, those inside others too."""
    for node in ast.iter_child_nodes(tree):
        inner = (
            f"{name}.{node.name}" if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else name
        )
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner, node
        yield from functions(node, inner)


def n_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    positional = [parameter.arg for parameter in (*given.posonlyargs, *given.args)]
    others = [*given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len(positional) - (positional[:1] in (["self"], ["cls"])) + len(others)


def test_functions_are_short_and_take_few_parameters() -> None:
    violations, many = [], set()
    for path in FILES:
        for name, function in functions(ast.parse(path.read_text()), module_name(path)):
            assert function.end_lineno is not None
            lines, parameters = function.end_lineno - function.lineno + 1, n_parameters(function)
            if lines > MOST_LINES:
                violations.append(f"{name} has {lines} lines")
            if parameters > MOST_PARAMETERS:
                many.add(name)
                if name not in MANY_PARAMETERS:
                    violations.append(f"{name} has {parameters} parameters")
    violations += [f"{name} is excused and needs it no more" for name in sorted(MANY_PARAMETERS - many)]
    assert not violations, "\n".join(violations)


def looked_up(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, code) of every `settings["key"]` and `settings.get("key")` on a name of composed settings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            of, key = node.value, node.slice
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            of, key = node.func.value, node.args[0]
        else:
            continue
        name = getattr(of, "id", getattr(of, "attr", "")).strip("_")  # of a name or an attribute
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and name in COMPOSED:
            yield node.lineno, ast.unparse(node)


def test_composed_settings_are_read_by_key_in_running_config_alone() -> None:
    """Below it they are dataclasses. (Benchmarks compose settings, as a user does.)"""
    violations, by_key = [], set()
    for path in FILES:
        module = module_name(path)
        if not covered(module, {"running.config", "benchmarks"}) and (
            found := list(looked_up(ast.parse(path.read_text())))
        ):
            by_key.add(module)
            violations += [f"{module}:{line} {code}" for line, code in found if module not in READ_BY_KEY]
    violations += [f"{module} is excused and needs it no more" for module in sorted(set(READ_BY_KEY) - by_key)]
    assert not violations, "\n".join(violations)


def prints(call: ast.Call) -> bool:
    """Whether a call writes to the terminal; `sys.exit` prints the text it is given."""
    called = ast.unparse(call.func)
    return called in ("print", "sys.stdout.write", "sys.stderr.write", "traceback.print_exc") or (
        called == "sys.exit" and isinstance(call.args[0], ast.JoinedStr)
    )


def test_one_module_alone_prints() -> None:
    """What it says survives a reader that has gone, and no text that is not ours acts on a terminal."""
    violations = []
    for path in FILES:
        module = module_name(path)
        if module == "gpt_lightning.console" or module.startswith("benchmarks"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        violations += [f"{module}, line {call.lineno}: {ast.unparse(call)}" for call in calls if prints(call)]
        if "rich.console" in imported_modules(path):
            violations.append(f"{module} imports rich.console")
    assert not violations, "\n".join(violations)


def test_every_part_of_the_house_has_a_rule() -> None:
    assert {module_name(path).split(".")[0] for path in FILES} <= {*MAY_IMPORT, *COMMANDS}


def test_importing_does_no_work() -> None:
    """No module touches the disk, the random state, the log handlers or the devices when it is imported."""
    modules = [module_name(path) for path in FILES]
    if importlib.util.find_spec("triton") is None:  # which comes with torch for CUDA, and for Linux alone
        modules.remove("gpt_lightning.model.loss_kernel_triton")
    script = f"""
import logging, os, random, sys
before = set(os.listdir("."))
import lightning, torch
state, torch_state, handlers = random.getstate(), torch.random.get_rng_state(), list(logging.root.handlers)
import importlib
for module in {modules}:
    importlib.import_module(module)
assert random.getstate() == state and torch.equal(torch.random.get_rng_state(), torch_state)
assert logging.root.handlers == handlers and not torch.cuda.is_initialized()
assert set(os.listdir(".")) == before
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_no_file_is_a_link() -> None:
    """A link leads elsewhere on another machine, and one in the place of a folder that git ignores has git delete it."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


def test_prose_names_files_that_exist() -> None:
    """A docstring, a comment or a page that names one of our files by a path or by a name in backticks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("this is no checkout")
    names = {Path(path).name for path in listed}
    ours = {Path(path).parts[0] for path in listed if "/" in path}
    missing = []
    for path in (Path(path) for path in listed if path.endswith((".py", ".md")) and path != "CHANGELOG.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        whole = {name for name in re.findall(r"(?<![\w./*])(?:\w+/)+\w+\.py\b", text) if name.split("/")[0] in ours}
        missing += [f"{path}: {name}" for name in whole if name not in listed]
        missing += [f"{path}: {name}" for name in re.findall(r"`(\w+\.py)`", text) if name not in names]
    assert not missing
