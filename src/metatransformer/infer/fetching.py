"""Readers of samples that lie behind a URL: each is brought here for as long as it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from metatransformer.core.samples import Record, View
from metatransformer.data.remote import Mirror
from metatransformer.pipeline import Pipeline, Reader


@dataclass(frozen=True, kw_only=True)
class _Fetching(Reader):
    mirrors: Sequence[Mirror]

    def raw(self, record: Record) -> View:
        for mirror in self.mirrors:
            if record.path is not None and mirror.holds(record.path):
                with mirror.local(record.path) as path:
                    return super().raw(replace(record, path=path))
        return super().raw(record)


def fetching(pipeline: Pipeline, mirrors: Sequence[Mirror]) -> Pipeline:
    """Returns the pipeline with readers that fetch what lies in ``mirrors``."""
    if not mirrors:
        return pipeline
    route = {}
    for name, reader in pipeline.route.items():
        own = {field.name: getattr(reader, field.name) for field in fields(Reader)}
        route[name] = _Fetching(**own, mirrors=tuple(mirrors))
    return replace(pipeline, route=route)
