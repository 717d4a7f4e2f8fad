"""Why did the model say this? Credit for one number, handed out to players."""
