"""The outer loop: a digital residual, an inexact correction, and an honest end."""
