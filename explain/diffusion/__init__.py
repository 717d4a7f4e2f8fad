"""Everything that knows what a denoiser is."""
