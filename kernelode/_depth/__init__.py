"""Moments and responses through depth: layer by layer, or along a flow."""
