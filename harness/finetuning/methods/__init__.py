"""Fine-tuning methods: what may change and what is minimised."""
