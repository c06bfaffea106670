"""Routes; one word names a page's route, view, template, script and stylesheet."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from runs.api.agent import api as agent_api
from runs.api.ops import api as ops_api
from runs.api.public import api as public_api
from runs.views import (
    account,
    calibration,
    compare,
    credentials,
    live,
    new_run,
    public,
    run,
    run_chart,
    runs,
    sandboxes,
    shard,
    shard_log,
    shards,
)

urlpatterns = [
    # programs; first those that ask most often
    path("agent/v1/", agent_api.urls),
    path("api/v1/", public_api.urls),
    path("ops/v1/", ops_api.urls),
    # anybody
    path("", public.home, name="home"),
    path("leaderboard", public.leaderboard, name="leaderboard"),
    path("methodology", public.methodology, name="methodology"),
    path("calibration", calibration.calibration, name="calibration"),
    path("calibration/chart", calibration.calibration_chart, name="calibration-chart"),
    path("runs", runs.runs, name="runs"),
    path("runs.atom", public.PublishedRuns(), name="runs-feed"),
    path("compare", compare.compare, name="compare"),
    path("compare/chart", compare.compare_chart, name="compare-chart"),
    path("leaderboard/card.svg", public.leaderboard_card, name="leaderboard-card"),
    path("providers/<slug:slug>", public.provider, name="provider"),
    # operators
    path("runs/new", new_run.new_run, name="new-run"),
    path("runs/new/estimate", new_run.estimate, name="run-estimate"),
    path("runs/new/preflight", new_run.run_preflight, name="run-preflight"),
    path("runs/new/presets", new_run.save_preset, name="save-preset"),
    path("runs/new/presets/<int:pk>", new_run.delete_preset, name="delete-preset"),
    path("runs/<str:code>/launch", run.run_launch, name="run-launch"),
    path("runs/<str:code>/abort", run.run_abort, name="run-abort"),
    path("runs/<str:code>/publish", run.run_publish, name="run-publish"),
    path("runs/<str:code>/unpublish", run.run_unpublish, name="run-unpublish"),
    path(
        "sign-in",
        LoginView.as_view(template_name="account/sign_in.html"),
        name="sign-in",
    ),
    path("sign-in/<str:uid>/<str:token>", account.sign_in_link, name="sign-in-link"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("account", account.account, name="account"),
    path("credentials/", credentials.credentials, name="credentials"),
    path(
        "credentials/<int:pk>", credentials.delete_credential, name="delete-credential"
    ),
    path("account/tokens", account.add_token, name="add-token"),
    path("account/tokens/<int:pk>", account.revoke_token, name="revoke-token"),
    # one Run; after every fixed word that could be taken for a code
    path("runs/<str:code>", run.run, name="run"),
    path("runs/<str:code>/live.json", live.live, name="run-live"),
    path("runs/<str:code>/chart", run_chart.run_chart, name="run-chart"),
    path("runs/<str:code>/summary.md", run.run_markdown, name="run-markdown"),
    path("runs/<str:code>/sandboxes", sandboxes.sandboxes, name="sandboxes"),
    path(
        "runs/<str:code>/sandboxes.<str:kind>",
        sandboxes.sandboxes_file,
        name="sandboxes-file",
    ),
    path("runs/<str:code>/shards", shards.shards, name="shards"),
    path("runs/<str:code>/shards/<int:index>", shard.shard, name="shard"),
    path(
        "runs/<str:code>/shards/<int:index>/log.txt", shard.shard_log, name="shard-log"
    ),
    path(
        "runs/<str:code>/shards/<int:index>/log-index.json",
        shard_log.shard_log_index,
        name="shard-log-index",
    ),
    path(
        "runs/<str:code>/shards/<int:index>/log-window.json",
        shard_log.shard_log_window,
        name="shard-log-window",
    ),
    path("runs/<str:code>/log", shard_log.run_log, name="run-log"),
]
