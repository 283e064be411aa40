"""Registers a provider and one model route for each of its models; the same name again updates it."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.providers import registration


class Command(BaseCommand):
    help = (
        "Register a server of models. Makes a route for each model, its public name being the upstream's name; a name "
        "that is routed already gets this provider as its last upstream. The same NAME again updates the provider. "
        "Example: OPENAI_API_KEY=sk-... manage.py add_provider openai --base-url https://api.openai.com/v1 "
        "--api-key-env OPENAI_API_KEY --models gpt-4o,gpt-4o-mini"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="lower-case letters, digits and . _ -")
        parser.add_argument("--base-url", required=True, help="as in the SDK: ends in /v1")
        parser.add_argument(
            "--api-key-env", metavar="VAR", help="environment variable that holds the provider's API key"
        )
        parser.add_argument(
            "--models", default="", help="models to route, comma separated; `public=upstream` gives another public name"
        )
        parser.add_argument(
            "--keep-routes",
            action="store_true",
            help="if the provider exists already, update it and leave routes alone",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        api_key = None
        if options["api_key_env"]:
            api_key = os.environ.get(options["api_key_env"])
            if not api_key:
                raise CommandError(f"the environment variable {options['api_key_env']} is not set")
        models = []
        for item in filter(None, map(str.strip, options["models"].split(","))):
            public, equals, upstream = item.partition("=")
            models.append((public, upstream if equals else public))
        try:
            provider, made, routes = registration.register(
                name=options["name"],
                base_url=options["base_url"],
                api_key=api_key,
                models=models,
                keep_routes=options["keep_routes"],
            )
        except registration.RegistrationError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{'Added' if made else 'Updated'} provider {provider.name} at {provider.base_url}.")
        for route in routes:
            self.stdout.write(f"Model {route} is served by it.")
