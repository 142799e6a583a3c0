"""Write the HTML page of a law: verdict, predictions, best mix and coefficients."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from analysis import standalone_html
from analysis.run_page import PAGE_CSS, image_html, table_html
from mix_laws.best_mix_search import BestMix
from mix_laws.cross_validation import linear_fit, r_squared, rank_correlation
from mix_laws.fit_data import MixRuns
from mix_laws.fitted_mix_law import MixLaw
from mix_laws.plots import draw_coefficients, draw_mixes, draw_predictions
from mix_laws.verdict_text import best_mix_sentences, chosen_mix, law_sentences

TableRows = list[list[str]]
"""Rows of a table, header first."""
_ERRORS = ["validation", "law, nats", "linear fit", "mean of the runs", "between repeats", "R²", "Spearman"]


def write_mix_law_page(runs: MixRuns, law: MixLaw, best: BestMix, path: Path, *, title: str) -> None:
    """Write the page. Its figures are embedded, and also saved in a folder of the same name.

    Args:
        runs: The runs that the law was fitted to.
        law: The fitted law.
        best: Result of the search.
        path: The HTML file.
        title: Plain text.
    """
    folder = path.with_suffix("")
    chosen = chosen_mix(best, law)
    draw_predictions(law, runs, folder / "predictions.png")
    draw_coefficients(law, runs, folder / "coefficients.png")
    draw_mixes(best, law, runs.sources, chosen, folder / "mixes.png")
    sections = [
        ("The mix", _mix(runs, law, best, folder)),
        ("Predicted and measured", _predictions(runs, law, folder)),
        ("Coefficients", _coefficients(law, folder)),
        ("Runs that are left out", _left_out(runs)),
    ]
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts) for heading, parts in sections)
    verdict = "".join(
        f"<p>{escape(sentence)}</p>" for sentence in [*law_sentences(law), *best_mix_sentences(best, law, runs.sources)]
    )
    standalone_html.write_html_page(
        path, title=title, body=f"<h1>{escape(title)}</h1>\n{verdict}\n{body}", style=PAGE_CSS
    )


def errors_table(runs: MixRuns, law: MixLaw) -> TableRows:
    """Return the errors on left-out runs per validation loss, of the law, a linear fit and the mean."""
    check, (noise, degrees) = law.check, law.noise
    ranks = rank_correlation(check.predicted, law.losses)
    columns = [check.rmse(errors) for errors in (check.law, check.linear, check.mean)]
    rows = [
        [
            name,
            *(f"{column[n]:.4f}" for column in columns),
            f"{noise[n]:.4f}" if degrees else "unknown",
            f"{check.r2(check.law)[n]:.3f}",
            f"{ranks[n]:.3f}",
        ]
        for n, name in enumerate(runs.validation)
    ]
    return [_ERRORS, *rows]


def held_out_table(runs: MixRuns, law: MixLaw) -> TableRows:
    """Return the same for held-out runs; empty if there are none."""
    if runs.held_out is None:
        return []
    ratios, measured = runs.held_out.ratios, runs.held_out.losses
    predicted = law.predict(ratios).reshape(measured.shape)
    low, high = (ends.reshape(measured.shape) for ends in law.run_interval(ratios))
    by_line = ratios @ linear_fit(runs.ratios, runs.losses)
    guesses = (predicted, by_line, np.broadcast_to(runs.losses.mean(axis=0), measured.shape))
    rmses = [np.sqrt(((guess - measured) ** 2).mean(axis=0)) for guess in guesses]
    noise, degrees = law.noise
    columns = (r_squared(predicted, measured), rank_correlation(predicted, measured))
    inside = ((measured >= low) & (measured <= high)).mean(axis=0)
    rows = [
        [
            name,
            *(f"{rmse[n]:.4f}" for rmse in rmses),
            f"{noise[n]:.4f}" if degrees else "unknown",
            *(f"{column[n]:.3f}" for column in columns),
            f"{inside[n]:.1%}",
        ]
        for n, name in enumerate(runs.validation)
    ]
    return [[*_ERRORS, "in the 95 % interval"], *rows]


def mixes_table(runs: MixRuns, law: MixLaw, best: BestMix) -> TableRows:
    """Return shares in percent of the mix to train, prior, best run and caps, and the predicted weighted mean loss."""
    mixes = (chosen_mix(best, law), best.prior, law.ratios[best.best_run])
    rows = [
        [
            source,
            *(f"{100 * mix[n]:.2f} %" for mix in mixes),
            f"{100 * best.aim.caps[n]:.3g} %{', binds' if best.bind[n] else ''}" if best.aim.caps[n] < 1 else "",
        ]
        for n, source in enumerate(runs.sources)
    ]
    of_chosen = best.of_mix if chosen_mix(best, law) is best.mix else best.of_prior
    predicted = (of_chosen, best.of_prior, best.of_best_run)
    head = ["", "mix to train", "prior", f"best run, {runs.names[best.best_run]}", "cap"]
    losses = ["predicted loss", *(f"{each.loss:.4f}" for each in predicted), ""]
    intervals = ["95 % interval of the law", *(f"{each.low:.4f} to {each.high:.4f}" for each in predicted), ""]
    return [head, *rows, losses, intervals]


def _mix(runs: MixRuns, law: MixLaw, best: BestMix, folder: Path) -> Iterator[str]:
    yield _html(mixes_table(runs, law, best))
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(runs.validation, best.aim.weights, strict=True))
    measured = float(law.losses[best.best_run] @ best.aim.weights)
    caps = (
        "" if runs.sequences else " The sizes of the sources are unknown, so no number of epochs limits their shares."
    )
    yield (
        f'<p class="note">The search minimises the mean of the validation losses, weighted {escape(weights)}, plus '
        f"{best.aim.closeness:g} times the Kullback-Leibler divergence from the prior, in nats.{caps} The best run "
        f"measured {measured:.4f}.</p>"
    )
    yield image_html("the mixes", folder / "mixes.png")


def _predictions(runs: MixRuns, law: MixLaw, folder: Path) -> Iterator[str]:
    yield _html(errors_table(runs, law))
    yield '<p class="note">Root mean square of predicted minus measured loss. Repeats are left out together.</p>'
    if runs.held_out is not None:
        yield f"<p>The {len(runs.held_out.names)} held-out runs:</p>"
        yield _html(held_out_table(runs, law))
    yield image_html("predicted and measured losses", folder / "predictions.png")


def _coefficients(law: MixLaw, folder: Path) -> Iterator[str]:
    shares = "r" if law.form.power == 1 else "√r"
    constant = "" if law.form.power == 1 else "b_i + "
    yield (
        f"<p>L_i(r) = c_i + exp({constant}t_i · {shares}) (arXiv:2403.16952). The further left a source is, the more "
        "it reduces the loss above c. Only differences between sources within a panel are meaningful.</p>"
    )
    yield image_html("coefficients with intervals", folder / "coefficients.png")


def _left_out(runs: MixRuns) -> Iterator[str]:
    yield "".join(f"<p>{escape(said)}</p>" for said in runs.left_out) or "<p>None.</p>"
    if runs.differences:
        differences = ", ".join(runs.differences)
        yield f"<p>The others differ not only in their mix, but also in {escape(differences)}. The fit ignores this.</p>"


def _html(rows: Sequence[Sequence[str]]) -> str:
    return table_html(rows[0], rows[1:])
