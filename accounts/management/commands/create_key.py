"""Make an API key for a script: `manage.py create_key --team T --name N`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q

from accounts.actor import Actor, acting_as
from accounts.models import Team
from accounts.services import NotPossible, create_key


class Command(BaseCommand):
    help = "Make an API key and print it alone on standard output."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--team", required=True, help="The team's name or slug.")
        parser.add_argument("--name", required=True, help="What will use the key.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["team"]
        team = Team.objects.filter(Q(name=name) | Q(slug=name)).first()
        if team is None:
            raise CommandError(f"There is no team called {name}.")
        try:
            with acting_as(Actor("command", "manage.py create_key")):
                _, text = create_key(team, options["name"], created_by=None)
        except NotPossible as why:
            raise CommandError(str(why)) from None
        self.stdout.write(text)
