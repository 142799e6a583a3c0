"""report.py: plots and a summary of a run, a comparison of runs, or a fitted mix law."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from analysis.run_page import progress_text, write_run_page, write_samples_markdown
from analysis.run_reader import LoggedRun
from analysis.text_logs.log_report import LogReport, report_logs
from gpt_lightning.console import Console, say
from running.config.command_configs import ReportConfig
from running.config.settings_parser import parse


def report(config: Mapping[str, Any]) -> None:
    """Draw a run, compare `runs`, fit `mix_law`, or draw the logs in `log_dir`; print a summary.

    Args:
        config: the composed settings of conf/report.yaml and the command line.

    Raises:
        ValueError: the run or the logs do not exist, nothing was logged yet, `runs` matches no run, or `out_dir` is not
            a folder.
    """
    settings = parse(ReportConfig, config)
    out_dir = settings.out_dir
    if settings.mix_law is not None:
        from mix_laws import write_and_print_mix_law  # slow to import

        write_and_print_mix_law(settings.mix_law, settings.held_out, out_dir, **vars(settings.mix))
    elif settings.runs is not None:
        from analysis.comparison import write_and_print_comparison

        write_and_print_comparison(settings.runs, out_dir)
    elif settings.log_dir is not None:
        _print_logs(report_logs(settings.log_dir, out_dir or settings.log_dir / "report", pattern=settings.pattern))
    else:
        run = LoggedRun(settings.run)
        _draw(run, out_dir or run.path / "report")


def _draw(run: LoggedRun, folder: Path) -> None:
    """Write the plots and the page of a run into a folder, and print a summary."""
    from analysis.run_plots import draw_curves, draw_mix, draw_perplexity  # Matplotlib is slow to import

    draw_curves(run.curves, folder / "curves.png")
    draw_mix(run, folder / "mix.png")
    draw_perplexity(run, folder / "perplexity.png")
    write_samples_markdown(run, folder / "samples.md")
    headings = {"Curves": "curves", "Perplexity by source": "perplexity", "Mix": "mix"}
    write_run_page(run, {heading: folder / f"{name}.png" for heading, name in headings.items()}, folder / "report.html")
    console = Console(soft_wrap=True)
    console.print(f"\n{run.path}: {run.metrics.last_step:,} steps, {progress_text(run)}")
    for name, lines in run.unreadable.items():
        console.print(f"{lines:,} line{'s' * (lines > 1)} of {name} cannot be read", style="bold red")
    if run.validation:
        console.print(_validation_table(run))
    for sample in _two_samples(run):
        console.print(f"\nsample at step {sample['step']}, after «{sample['prompt'].strip()}»:", style="bold")
        console.print("    " + sample["response"].strip().replace("\n", "\n    "))
    console.print(
        f"\nplots:       {', '.join(str(folder / f'{name}.png') for name in ('curves', 'mix', 'perplexity'))}"
    )
    console.print(f"page:        {folder / 'report.html'}; samples through time: {folder / 'samples.md'}")
    console.print(f"TensorBoard: make tensorboard, or .venv/bin/tensorboard --logdir {run.path.parent}")


def _print_logs(report: LogReport) -> None:
    log = report.log
    first = f"; the first is {log.first_not_understood}" if log.first_not_understood else ""
    steps, saved, interrupted = log.steps.n_lines, len(log.steps.saved), len(log.steps.interrupted)
    say(
        f"read:    {log.n_files:,} files, {log.n_lines:,} lines, {steps:,} of them for {len(log.steps):,} training "
        "steps"
    )
    say(f"         {len(log.samples):,} blocks of samples, {saved:,} checkpoints, {interrupted:,} interruptions")
    say(f"         {log.n_not_understood:,} lines could not be understood{first}")
    say(f"written: {', '.join(map(str, report.written))}")


def _validation_table(run: LoggedRun) -> Table:
    table = Table("validation", "perplexity", "unigram perplexity", "bits per byte", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for of in run.validation:
        unigram = f"{of.unigram_perplexity:.0f}" if of.unigram_perplexity else ""
        table.add_row(of.source, f"{of.perplexity:.1f}", unigram, f"{of.bits_per_byte:.3f}")
    return table


def _two_samples(run: LoggedRun) -> list[dict[str, Any]]:
    """The last text and the last chat of the newest samples; the last two if there are not both."""
    newest = [sample for sample in run.samples if sample["step"] == run.samples[-1]["step"]]
    texts, chats = ([s for s in newest if bool(s.get("chat")) == chat] for chat in (False, True))
    return [*texts[-1:], *chats[-1:]] if texts and chats else newest[-2:]
