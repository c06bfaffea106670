from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("runs.urls")),
 path("", lambda r: HttpResponse(""), name="home"), path("s", lambda r: HttpResponse(""), name="sign-in"), path("s/<uid>/<token>", lambda r: HttpResponse(""), name="sign-in-link")]
