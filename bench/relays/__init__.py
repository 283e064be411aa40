"""What the gateway is compared with: two bare relays and the LiteLLM proxy, each in one process."""
