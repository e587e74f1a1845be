"""One file per question about speed: `measure(quick) -> list of Table`; `quick` only looks, in seconds, whether it runs."""
