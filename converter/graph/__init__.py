"""Messages to a `Net`: layers selected, names resolved, shapes computed, weights attached."""
