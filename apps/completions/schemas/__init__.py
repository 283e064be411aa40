"""The shapes of requests, as OpenAI documents them; see chat.py and embeddings.py."""
