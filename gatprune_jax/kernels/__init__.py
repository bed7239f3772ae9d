"""What exists for speed only: each kernel equals a plain reference, by test."""
