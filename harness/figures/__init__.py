"""What is drawn: flat maps of the cortex and curves over optimizer steps."""
