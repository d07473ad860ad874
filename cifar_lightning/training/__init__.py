"""Loss, metrics, optimizers, schedules and callbacks around a network."""
