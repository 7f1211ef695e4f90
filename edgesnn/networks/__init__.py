"""Networks: what one is (spec), those with a name (zoo), a user's own (trace), the trainable form (spiking)."""
