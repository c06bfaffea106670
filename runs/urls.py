from django.urls import path

from runs.api.agent import api as agent_api
from runs.api.public import api as public_api

urlpatterns = [
    path("api/v1/", public_api.urls),
    path("agent/v1/", agent_api.urls),
]
