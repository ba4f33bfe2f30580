"""Figures of a study: what is drawn, once as a picture and once for the page."""
