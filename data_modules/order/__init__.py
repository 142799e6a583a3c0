"""From mix weights to the order of a run's sequences, without reading any data.

    Curriculum ──resolve(steps)──> ResolvedCurriculum ──> SampleOrder ──locate(i)──> (source, epoch, sequence)

`run_order` builds the order of one run. A resumed run keeps the order of the steps that its checkpoint records. Nothing
here imports torch.
"""
