"""Which tokenizer goes with a run, a folder of weights, or a name in a data folder."""

import json
from pathlib import Path

from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from running.config import compose


def load_tokenizer_by_name(name: str, data_dir: Path) -> Tokenizer:
    """The tokenizer of that name in a data folder, where one was trained; else the one that `load_tokenizer` knows."""
    return load_tokenizer(data_dir / name if (data_dir / name / "tokenizer.json").is_file() else name)


def load_model_tokenizer(path: Path, name: str | None) -> Tokenizer:
    """The tokenizer called `name`; without a name the one that goes with the model at `path`.

    A run names it in its config.yaml, a converted folder holds it.

    Raises:
        ValueError: there is none, or the run was trained with another one of that name.
    """
    if not path.exists():
        raise ValueError(f"there is no run or model {path}.")
    if name is not None:
        return load_tokenizer(name)
    run = path.parent.parent if path.is_file() else path
    if (run / "config.yaml").is_file():
        return _tokenizer_of_run(run)
    if (path / "tokenizer.json").is_file():
        return load_tokenizer(path)
    raise ValueError(f"{path} does not say which tokenizer its model was trained with: name it with tokenizer.name=….")


def check_same_tokenizer(path: Path, tokenizer: Tokenizer) -> bool:
    """Weights that are trained on must have been trained with the same tokens, or with some of them, if it is known.

    Returns:
        whether it is.

    Raises:
        ValueError: an id is another token with the tokenizer of the model at `path`.
    """
    try:
        theirs = load_model_tokenizer(path, None)
    except ValueError:
        return False
    if not tokenizer.extends(theirs):
        raise ValueError(
            f"init_from={path} was trained with other tokens than those of tokenizer {tokenizer.name} here: "
            f"{_typed(path, theirs)}."
        )
    return True


def _typed(path: Path, tokenizer: Tokenizer) -> str:
    """What to type for the tokenizer of a model that a run begins with."""
    size = f"tokenizer.model_vocab_size={tokenizer.vocab_size}"
    if not path.is_dir() or (path / "config.yaml").is_file():  # of a run, which knows its name
        is_choice = tokenizer.name in compose.group_choices("tokenizer")
        return f"take tokenizer={tokenizer.name}" if is_choice else f"take tokenizer.name={tokenizer.name} {size}"
    return f"copy {path}/tokenizer.json to data/<name>/, and prepare and train with tokenizer.name=<name> {size}"


def _tokenizer_of_run(run: Path) -> Tokenizer:
    try:
        config = compose.read_config(run / "config.yaml")
        name = config["tokenizer"]["name"]
        data_dir = Path(config["data_dir"])
        fingerprint = json.loads((run / "environment.json").read_text())["tokenizer"]
    except Exception as error:  # what is no YAML or no config of ours makes OmegaConf raise almost anything
        raise ValueError(
            f"{run} does not say which tokenizer it was trained with: its config.yaml and environment.json are not those of "
            f"a run ({type(error).__name__}). Name it with tokenizer.name=…."
        ) from error
    tokenizer = load_tokenizer_by_name(name, data_dir)
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{run} was trained with another tokenizer {tokenizer.name} than {data_dir} or this version has now: name the right "
            "one with tokenizer.name=…."
        )
    return tokenizer
