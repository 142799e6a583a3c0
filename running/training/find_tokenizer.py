"""Find the tokenizer of a run, of a folder of weights, or of a name in a data folder."""

import json
from pathlib import Path

from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from running.config import compose


def load_tokenizer_by_name(name: str, data_dir: Path) -> Tokenizer:
    """The tokenizer of this name: a tokenizer trained in the data folder, or else a tokenizer that `load_tokenizer`
    knows.

    Args:
        name: name of the tokenizer.
        data_dir: the data folder.
    """
    return load_tokenizer(data_dir / name if (data_dir / name / "tokenizer.json").is_file() else name)


def load_model_tokenizer(path: Path, name: str | None) -> Tokenizer:
    """The tokenizer called `name`; without a name, the tokenizer of the model at `path`.

    A run names its tokenizer in config.yaml; a converted folder contains it.

    Args:
        path: a run, a checkpoint or a folder with a model.
        name: as in `tokenizer.name`; None: the model's own.

    Raises:
        ValueError: there is no tokenizer, or the run was trained with a different tokenizer of that name.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: pass the path of a run or a model.")
    if name is not None:
        return load_tokenizer(name)
    run = path.parent.parent if path.is_file() else path
    if (run / "config.yaml").is_file():
        return _tokenizer_of_run(run)
    if (path / "tokenizer.json").is_file():
        return load_tokenizer(path)
    raise ValueError(f"{path} does not record the tokenizer of its model: set it with tokenizer.name=….")


def check_same_tokenizer(path: Path, tokenizer: Tokenizer) -> bool:
    """Check that the tokenizer of the initial weights has the same ids for its tokens as the run's tokenizer.

    The run's tokenizer may have more tokens.

    Args:
        path: the model of `init_from`.
        tokenizer: tokenizer of the run.

    Returns:
        Whether the model's tokenizer is known. If it is unknown, nothing is checked.

    Raises:
        ValueError: an id stands for different tokens in the two tokenizers.
    """
    try:
        theirs = load_model_tokenizer(path, None)
    except ValueError:
        return False
    if not tokenizer.extends(theirs):
        raise ValueError(
            f"init_from={path} was trained with a tokenizer whose ids differ from those of {tokenizer.name}: "
            f"{_typed(path, theirs)}."
        )
    return True


def _typed(path: Path, tokenizer: Tokenizer) -> str:
    """The settings to type to get the tokenizer of initial weights."""
    size = f"tokenizer.model_vocab_size={tokenizer.vocab_size}"
    if not path.is_dir() or (path / "config.yaml").is_file():  # a run records the name
        is_choice = tokenizer.name in compose.group_choices("tokenizer")
        return f"set tokenizer={tokenizer.name}" if is_choice else f"set tokenizer.name={tokenizer.name} {size}"
    return f"copy {path}/tokenizer.json to data/<name>/, then prepare and train with tokenizer.name=<name> {size}"


def _tokenizer_of_run(run: Path) -> Tokenizer:
    try:
        recorded = compose.read_config(run / "config.yaml")
        name = recorded["tokenizer"]["name"]
        data_dir = Path(recorded["data_dir"])
        fingerprint = json.loads((run / "environment.json").read_text())["tokenizer"]
    except Exception as error:  # OmegaConf may raise almost anything for a file that is not one of our configs
        raise ValueError(
            f"{run} does not record its tokenizer: its config.yaml and environment.json are not those of "
            f"a run ({type(error).__name__}). Set it with tokenizer.name=…."
        ) from error
    tokenizer = load_tokenizer_by_name(name, data_dir)
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{run} was trained with a tokenizer {tokenizer.name} that differs from the one in {data_dir} or in this "
            "version: set the right one with tokenizer.name=…."
        )
    return tokenizer
