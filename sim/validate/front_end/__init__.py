"""What the engine's front end takes on the way in and out, fitted to what clients and engine recorded."""
