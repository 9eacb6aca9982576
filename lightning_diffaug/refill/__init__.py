"""Who fills the pool: one function that fills a slot, and launchers that call it."""
