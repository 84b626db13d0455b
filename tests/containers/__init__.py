"""sexton-init in real containers: podman and runc, offline, on storage of their own."""
