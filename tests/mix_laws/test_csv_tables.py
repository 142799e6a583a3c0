"""Tables of RegMix's and of Olmix's kind, right and wrong."""

from pathlib import Path

import numpy as np
import pytest

from mix_laws import read_mix_runs
from mix_laws.csv_tables import is_folder_of_tables

MIXTURE = "index,train_the_pile_arxiv,train_the_pile_github\n1,0.25,0.75\n2,1.0,0.0\n3,0.5,0.499\n"
LOSSES = "index,metric/the_pile_arxiv_val_loss,metric/the_pile_pile_cc_val_loss\n3,3.5,4.5\n1,3.1,4.1\n2,3.2,4.2\n"


def folder_of(path: Path, **files: str) -> str:
    for name, content in files.items():
        (path / f"{name}.csv").write_text(content)
    return str(path)


def test_regmix_tables_are_joined_by_index(tmp_path: Path) -> None:
    test = {"test_mixture_1m": MIXTURE, "test_pile_loss_1m": LOSSES.replace("3.5", "9.5")}
    runs = read_mix_runs(folder_of(tmp_path, train_mixture_1m=MIXTURE, train_pile_loss_1m=LOSSES, **test))
    assert runs.names == ("1", "2", "3")
    assert runs.sources == ("arxiv", "github")
    assert runs.validation == ("arxiv", "pile_cc")
    assert runs.ratios == pytest.approx(np.array([[0.25, 0.75], [1, 0], [0.5005, 0.4995]]), abs=1e-4)
    assert runs.losses.tolist() == [[3.1, 4.1], [3.2, 4.2], [3.5, 4.5]]
    assert runs.held_out is not None
    assert runs.held_out.losses[2, 0] == 9.5
    assert runs.sequences == {}


@pytest.mark.parametrize("key", ["run", "run_id"])
def test_olmix_tables_are_joined_by_run(tmp_path: Path, key: str) -> None:
    ratios = f"{key},name,index,dclm,wikipedia\nr2,second,0,0.3,0.7\nr1,first,1,0.6,0.4\n"
    metrics = f"{key},name,index,arc_bpb,mmlu_stem_bpb\nr1,first,0,1.1,1.2\nr2,second,1,2.1,2.2\n"
    runs = read_mix_runs(folder_of(tmp_path, ratios=ratios, metrics=metrics))
    assert runs.names == ("r2", "r1")
    assert runs.sources == ("dclm", "wikipedia")
    assert runs.validation == ("arc", "mmlu_stem")
    assert runs.losses.tolist() == [[2.1, 2.2], [1.1, 1.2]]


@pytest.mark.parametrize(
    ("mixture", "losses", "message"),
    [
        (MIXTURE.replace("0.499", "0.3"), LOSSES, r"mixture.csv, line 4: the shares of run 3 sum to 0.8"),
        (MIXTURE.replace("0.25,0.75", "-0.25,1.25"), LOSSES, r"mixture.csv, line 2: the shares of run 1"),
        (
            MIXTURE,
            LOSSES.replace("3.1", "x"),
            r"loss.csv, line 3: metric/the_pile_arxiv_val_loss is 'x': it must be a finite",
        ),
        (MIXTURE, LOSSES.replace("3.1", "nan"), r"loss.csv, line 3: .* is 'nan'"),
        (MIXTURE, LOSSES.replace("1,3.1,4.1\n", "1,3.1\n"), r"loss.csv, line 3: it has 2 cells: it must have 3"),
        (MIXTURE, LOSSES.replace("1,3.1", "3,3.1"), r"loss.csv, line 3: run 3 already occurs in line 2"),
        (MIXTURE, LOSSES.replace("1,3.1", "4,3.1"), r"loss.csv lacks run 1"),
        (
            MIXTURE,
            LOSSES.replace("index", "number"),
            r"loss.csv, line 1: it must have a column named index, run or run_id",
        ),
        (MIXTURE, LOSSES.splitlines()[0] + "\n", r"0 rows and 2 columns"),
        (MIXTURE, "", r"loss.csv is not a table"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, mixture: str, losses: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_mix_runs(folder_of(tmp_path, train_mixture=mixture, train_loss=losses))


def test_files_must_pair(tmp_path: Path) -> None:
    assert not is_folder_of_tables(tmp_path)
    with pytest.raises(ValueError, match=r"mix_law: .* matches no run: .* CSV files"):
        read_mix_runs(str(tmp_path))
    with pytest.raises(ValueError, match=r"train_mixture.csv has no matching files of losses"):
        read_mix_runs(folder_of(tmp_path, train_mixture=MIXTURE, test_loss=LOSSES))
    with pytest.raises(ValueError, match=r"has 2 tables of mixes"):
        read_mix_runs(folder_of(tmp_path, train_loss=LOSSES, other_mixture=MIXTURE, other_loss=LOSSES))
