import pytest

from gateway.models import Route
from gateway.queries import example_model_name, model_names


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (["gemini-2.5-flash", "gpt-4o-mini"], "gpt-4o-mini"),
        (["deepseek-v3.2", "gpt-4.1"], "deepseek-v3.2"),
        ([], "gpt-4o-mini"),
    ],
)
def test_the_example_is_the_usual_small_one_where_it_is_offered(names, example):
    assert example_model_name(names) == example


@pytest.mark.django_db
def test_what_is_switched_off_is_not_offered():
    Route.objects.create(model_name="gpt-4.1")
    Route.objects.create(model_name="deepseek-v3.2")
    Route.objects.create(model_name="gpt-4o-mini", enabled=False)

    assert model_names() == ["deepseek-v3.2", "gpt-4.1"]
