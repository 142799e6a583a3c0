"""The watchers of a run. None of them can change the training, but for LossFollowing, which moves weights where the curriculum
asks for it, and three that end it: MedianPruning, EarlyStopping, and SuddenEnd, a kill. WeightAveraging and EMAWeightAveraging
decide which weights are validated, and given to whoever loads a checkpoint.

    Throughput             speed/…, memory/…             MixLedger     mix/…: planned, realised, epochs, drift
    ValidationPerplexity   val/…                         Samples       samples.jsonl
    RunLog                 train/…, terminal, log file    Checkpoints   checkpoints/, and the cut of the logs at a resume
    Stopping               signals and max_hours          Faults        faults.jsonl: steps left out, losses that are not finite
    ZeroShot               zero_shot/…: tasks of questions
    MedianPruning          pruned.json: of a sweep, runs that others are ahead of
    SameBeginning          of several ranks              DataWait      the clock that Throughput reads: waiting for data
    MetricsTable           metrics.csv                   PassedOn      Weights & Biases, MLflow
    EarlyStopping          ends a run that does not improve             EndedEarly    ended_early.json
    EndOfStep              the end of each row of metrics.jsonl
    LossFollowing          weights.jsonl: updates of the weights, which it gives the data module
    DietLog, SuddenEnd     of verify.py: every sequence in diet/, and a kill

Whatever happens at a step is on disk before the checkpoint of that step: metrics and samples are written at the end of the
step, validation included, and the checkpoint is saved when the next step begins.
"""

from callbacks.ado_updater import AdoUpdater
from callbacks.checkpoints import Checkpoints, CheckpointWriteError
from callbacks.csv_metrics import CsvMetrics
from callbacks.early_stopping import ENDED_EARLY, EarlyStopping, EndedEarly
from callbacks.experiment_tracker import ExperimentTracker
from callbacks.graceful_stop import GracefulStop, RunStopped
from callbacks.median_pruning import PRUNED, MedianPruning, RunPruned
from callbacks.mix_ledger import MixLedger
from callbacks.replay_probe import KillAtStep, SampleOrderLog
from callbacks.samples import Samples
from callbacks.skipped_step_log import SkippedStepLog
from callbacks.start_agreement import StartAgreement
from callbacks.step_log import StepLog, WriteMetricsAtStepEnd
from callbacks.throughput import Throughput
from callbacks.validation_perplexity import ValidationPerplexity
from callbacks.weight_averaging import EMAWeightAveraging, WeightAveraging
from callbacks.zero_shot_evaluation import ZeroShotEvaluation
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.tensorboard import TensorBoard

__all__ = [
    "ENDED_EARLY",
    "PRUNED",
    "AdoUpdater",
    "CheckpointWriteError",
    "Checkpoints",
    "CsvMetrics",
    "EMAWeightAveraging",
    "EarlyStopping",
    "EndedEarly",
    "ExperimentTracker",
    "GracefulStop",
    "JsonlMetrics",
    "KillAtStep",
    "MedianPruning",
    "MixLedger",
    "RunPruned",
    "RunStopped",
    "SampleOrderLog",
    "Samples",
    "SkippedStepLog",
    "StartAgreement",
    "StepLog",
    "TensorBoard",
    "Throughput",
    "ValidationPerplexity",
    "WeightAveraging",
    "WriteMetricsAtStepEnd",
    "ZeroShotEvaluation",
]
