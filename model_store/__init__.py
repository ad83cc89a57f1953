"""Agents at rest: manifests, a content-addressed store of versions, aliases with a way back.

Standard library only. What an agent does is not known here; see ``edge_sdk`` and ``training``.

    from model_store import Draft, Store
"""

from __future__ import annotations

from model_store.agent import StoredAgent
from model_store.aliases import Step
from model_store.blobs import Problem
from model_store.errors import (
    AdaCompressError,
    AgentNotFound,
    BundleInvalid,
    CorruptAgent,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    StoreError,
    UnsafeModel,
    Untrusted,
    UsageError,
)
from model_store.manifest import Draft, FileEntry, Manifest
from model_store.reader import StoreReader
from model_store.store import Store

__all__ = [
    "AdaCompressError",
    "AgentNotFound",
    "BundleInvalid",
    "CorruptAgent",
    "Draft",
    "EnvironmentMissing",
    "FileEntry",
    "Manifest",
    "ManifestInvalid",
    "Problem",
    "SchemaTooNew",
    "Step",
    "Store",
    "StoreError",
    "StoreReader",
    "StoredAgent",
    "UnsafeModel",
    "Untrusted",
    "UsageError",
]
