"""The kinds that this app brings: a chat completion and embeddings, each the live call on a task's terms."""
