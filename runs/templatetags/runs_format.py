"""How numbers, times and states read on pages."""

from django import template

register = template.Library()
