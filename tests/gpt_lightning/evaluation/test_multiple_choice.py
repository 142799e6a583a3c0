"""How questions are put and judged, against one question at a time as a person would do it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.evaluation import (
    Question,
    QuestionsConfig,
    RequestTooLongError,
    Score,
    encode_question,
    group_request_indices,
    score_batch,
    score_question,
)
from gpt_lightning.evaluation.log_likelihood_tasks import TaskDescription, question_task, read_questions, sample_evenly
from gpt_lightning.evaluation.question_template import BadQuestionError, MissingFieldError, QuestionTemplate
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from running.config.compose import read_choice
from running.config.settings_parser import parse


def template(task: str) -> QuestionTemplate:
    return parse(QuestionsConfig, read_choice("task", task), name="task")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2")


def test_completion_is_what_one_record_at_a_time_gives(shared_data: Path, tiny_data: Path) -> None:
    """All 1,000 original records: raw context, each ending by itself, sum and mean of its tokens."""
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    torch.manual_seed(5)
    model = GPT(GPTConfig(vocab_size=512, max_seq_len=512, d_model=16, n_layers=1, n_heads=1, d_ff=32, dropout=0.0))
    torch.nn.init.normal_(model.embedding.weight, std=0.5)
    model.eval()
    path = shared_data / "hellaswag" / "hellaswag_val_1000_original_fields.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    right, by_hand = {"acc": 0, "acc_norm": 0}, []
    for record in records:
        sums, means = [], []
        for ending in record["endings"]:
            context, answer = tokenizer.encode(record["ctx"]), tokenizer.encode(" " + ending)
            with torch.inference_mode():
                x = model.hidden(torch.tensor([[*context, *answer]]))[0, len(context) - 1 : -1]
                losses = torch.nn.functional.cross_entropy(model.logits(x), torch.tensor(answer), reduction="none")
            sums.append(float(losses.sum()))
            means.append(float(losses.mean()))
        by_hand.append({"acc": int(np.argmin(sums)), "acc_norm": int(np.argmin(means))})
        right["acc"] += int(np.argmin(sums)) == int(record["label"])
        right["acc_norm"] += int(np.argmin(means)) == int(record["label"])
    rows = [(f"line {number}", record) for number, record in enumerate(records, start=1)]
    questions, left_out = read_questions(rows, template("hellaswag_completion"))
    assert left_out == []
    task = question_task(TaskDescription(name="h", protocol="completion"), questions, tokenizer, max_seq_len=512)
    scores: dict[int, Score] = {}
    for group in group_request_indices(task.requests, batch_tokens=4096):
        scores |= zip(group, score_batch(model, [task.requests[n] for n in group]), strict=True)
    figures = task.figures([scores[n] for n in range(len(task.requests))])
    assert {metric: figures[metric].value for metric in right} == {k: n / 1000 for k, n in right.items()}
    chosen = [example["chosen"] for example in task.examples([scores[n] for n in range(len(task.requests))])]
    assert chosen == by_hand
    assert figures["acc"].low < 0.25 < figures["acc"].high  # the model knows nothing


@given(
    st.text("ab \n", max_size=12), st.text("ab ", min_size=1, max_size=8), st.sampled_from(["harness", "completion"])
)
def test_what_is_scored_spells_the_answer(tokenizer: Tokenizer, context: str, answer: str, protocol: str) -> None:
    question = encode_question(Question(context, [answer], 0, "x"), tokenizer, protocol=protocol, max_seq_len=64)
    (request,) = question.requests
    text = tokenizer.decode(list(request.scored))
    assert question.n_bytes == len(text.encode())
    before = tokenizer.decode([i for i in request.ids[: request.first] if i != tokenizer.eot_id])
    assert before + text == f"{context} {answer}"
    assert text.endswith(f" {answer}")


def test_a_context_that_does_not_fit_is_counted_and_an_answer_is_refused(tokenizer: Tokenizer) -> None:
    question = Question("word " * 40, ["yes", "no"], 0, "line 7")
    asked = encode_question(question, tokenizer, protocol="harness", max_seq_len=16)
    assert asked.n_cut > 0
    assert all(len(request.ids) == 17 for request in asked.requests)
    with pytest.raises(
        RequestTooLongError,
        match="line 7: an answer is too long: a request has 31 tokens to score: it must have at most 16",
    ):
        encode_question(Question("", ["no " * 30, "b"], 0, "line 7"), tokenizer, protocol="harness", max_seq_len=16)
    task = question_task(TaskDescription(name="t", protocol="harness"), [question], tokenizer, max_seq_len=16)
    assert task.cut == ["line 7"]


def test_each_metric_has_a_size_of_its_own() -> None:
    question = Question("c", ["ab", "äöüä", "abcdef"], 1, "x")
    scores = [Score(4.0, False), Score(6.0, True), Score(7.0, False)]
    # as a whole: the first; per character 2.0, 1.5, 1.17; per byte 2.0, 0.75, 1.17; per token 4.0, 2.0, 1.0
    verdict = score_question(question, scores, [1, 3, 7], protocol="harness")
    assert verdict.chosen == {"acc": 0, "acc_norm": 2, "acc_bytes": 1}
    assert verdict.right == {"acc": False, "acc_norm": False, "acc_bytes": True}
    assert score_question(question, scores, [1, 3, 7], protocol="completion").chosen == {"acc": 0, "acc_norm": 2}
    alone = score_question(Question("c", ["x"], 0, "x"), [Score(2.0, True)], [1], protocol="harness")
    assert alone.right == {"acc": True}


def test_a_last_word_has_a_perplexity(tokenizer: Tokenizer) -> None:
    lambada = template("lambada")
    question = lambada.question({"text": "He took a sip of hot tea"}, "line 1")
    assert (question.context, question.answers) == ("He took a sip of hot", ["tea"])
    task = question_task(TaskDescription(name="l", protocol="harness"), [question] * 2, tokenizer, max_seq_len=64)
    figures = task.figures([Score(1.0, True), Score(3.0, False)])
    assert figures["acc"].value == 0.5
    assert figures["perplexity"].value == pytest.approx(math.exp(2.0))
    assert figures["gold_bits_per_byte"].value == pytest.approx(4.0 / math.log(2) / 8)  # " tea" twice


RECORDS = {
    "arc_easy": (
        {"question": "Why?", "choices": {"text": ["so", "not"], "label": ["A", "B"]}, "answerKey": "B"},
        Question("Question: Why?\nAnswer:", ["so", "not"], 1, "here"),
    ),
    "piqa": (
        {"goal": "open it", "sol1": "pull", "sol2": "push", "label": 1},
        Question("Question: open it\nAnswer:", ["pull", "push"], 1, "here"),
    ),
    "blimp": (
        {"sentence_good": "I am.", "sentence_bad": "I is."},
        Question("", ["I am.", "I is."], 0, "here"),
    ),
    "hellaswag": (
        {"activity_label": "Baking", "ctx_a": "[header] How [title] A", "ctx_b": "she Then"}
        | {"endings": ["x  y", "z"], "label": "0"},
        Question("Baking: How. A She then", ["x y", "z"], 0, "here"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", RECORDS)
def test_a_public_record_becomes_its_question(task: str) -> None:
    record, question = RECORDS[task]
    assert template(task).question(record, "here") == question
    for name in record:
        without = {key: value for key, value in record.items() if key != name}
        with pytest.raises(MissingFieldError, match=r"the field .* is missing"):
            template(task).question(without, "here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"endings": ["a", " "]}, "answer 1 is empty"),
        ({"endings": "a"}, "endings is not a list of strings"),
        ({"endings": ["a", 3]}, "endings is not a list of strings"),
        ({"label": "2"}, "label is '2', but there are 2 answers, counted from 0"),
        ({"label": None}, "label is None, but there are 2 answers, counted from 0"),
        ({"label": True}, "label is True, but there are 2 answers, counted from 0"),
        ({"label": 0.7}, "label is 0.7, but there are 2 answers, counted from 0"),
        ({"label": 1e999}, "label is inf, but there are 2 answers, counted from 0"),
        ({"endings": ["a"]}, "endings has fewer than two answers"),
        ({"endings": ["a", "\ud83d"]}, "it contains half a surrogate pair"),
        ({"ctx_a": 5}, "ctx_a is 5, not a string"),
    ],
)
def test_a_record_that_cannot_be_asked_is_left_out_and_named(change: dict[str, object], said: str) -> None:
    record = RECORDS["hellaswag"][0]
    questions, left_out = read_questions([("line 1", record), ("line 2", record | change)], template("hellaswag"))
    assert len(questions) == 1
    assert left_out == [f"line 2: {said}"]
    with pytest.raises(BadQuestionError, match=said):
        template("hellaswag").question(record | change, "line 2")


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"line 1: the field .+ is missing; the record has goal, label"):
        read_questions([("line 1", {"goal": "x", "label": 0})], template("arc_easy"))
    with pytest.raises(ValueError, match=r"no record forms a question: line 1: it is not an object with fields"):
        read_questions([("line 1", "a text")], template("piqa"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"context": "{a"}, "is malformed"),
        ({"context": "{a!x}"}, r"has the conversion !x: it must be !c"),
        ({"clean": "soap"}, "clean is 'soap': it must be null or wikihow"),
        ({"answers": 5}, "answers is 5: it must be the name of a field, or a list of templates"),
    ],
)
def test_a_template_that_means_nothing_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QuestionTemplate(**({"context": "{a}", "answers": "b", "gold": 0} | settings))


def test_a_template_reaches_fields_and_nothing_else() -> None:
    """`str.format` would give away anything that an attribute leads to."""
    nosy = QuestionTemplate(context="{a.__class__.__mro__}", answers=["x", "y"], gold=0)
    with pytest.raises(MissingFieldError, match=r"the field a.__class__.__mro__ is missing"):
        nosy.question({"a": "b"}, "here")


@pytest.mark.parametrize("labels", [["A", "A"], ["A", "B", "C"], ["B", "C"]])
def test_labels_that_name_no_answer_or_two_are_bad(labels: list[str]) -> None:
    record = RECORDS["arc_easy"][0] | {"choices": {"text": ["so", "not"], "label": labels}, "answerKey": "A"}
    with pytest.raises(BadQuestionError, match="answerKey is 'A', but the 2 answers have the labels"):
        template("arc_easy").question(record, "here")


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_part_is_spread_over_all(n: int, limit: int) -> None:
    part = sample_evenly(range(n), limit)
    assert len(part) == min(n, limit)
    assert sorted(set(part)) == list(part)
    assert all(abs(item - k * n / limit) < 1 for k, item in enumerate(part) if n > limit)
