"""Routes; one word names a page's route, view, template, script and stylesheet."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from runs.api.agent import api as agent_api
from runs.api.ops import api as ops_api
from runs.api.public import api as public_api
from runs.views import account, new_run, public, runs

urlpatterns = [
    # anybody
    path("", public.home, name="home"),
    path("leaderboard", public.leaderboard, name="leaderboard"),
    path("methodology", public.methodology, name="methodology"),
    path("runs", runs.runs, name="runs"),
    # operators
    path("runs/new", new_run.new_run, name="new-run"),
    path("runs/new/estimate", new_run.estimate, name="run-estimate"),
    path(
        "sign-in",
        LoginView.as_view(template_name="account/sign_in.html"),
        name="sign-in",
    ),
    path("sign-in/<str:uid>/<str:token>", account.sign_in_link, name="sign-in-link"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("account", account.account, name="account"),
    path("account/tokens", account.add_token, name="add-token"),
    path("account/tokens/<int:pk>", account.revoke_token, name="revoke-token"),
    # programs
    path("api/v1/", public_api.urls),
    path("agent/v1/", agent_api.urls),
    path("ops/v1/", ops_api.urls),
]
