"""What a person did for the first time is noted once."""

import pytest

from accounts.models import Milestone, User
from accounts.services import milestones


@pytest.mark.django_db
def test_a_milestone_is_reached_once(django_assert_num_queries):
    alice = User.objects.create_user("alice@example.com")
    milestones.reach(alice, Milestone.Name.COST_SEEN)
    first = alice.milestones.get().reached_at

    with django_assert_num_queries(1):
        milestones.reach(alice, Milestone.Name.COST_SEEN)

    assert alice.milestones.get().reached_at == first
