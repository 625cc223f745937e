//! How AgentForge is deployed: the manifests, images and scripts, tested in `it`. There is no code to build on.
