"""The line: catalog, rules, decode, pipeline, alerts, snapshots, replay; no network, no clock."""

__version__ = "0.1.0"
