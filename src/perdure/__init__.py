"""Perdure backs up ZODB, Zope and Plone sites into a standard repository, and gives any moment back."""

__version__ = "0.1.0"
