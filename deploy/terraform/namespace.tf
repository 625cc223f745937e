resource "kubernetes_namespace_v1" "this" {
  metadata {
    name = local.namespace
    labels = merge(
      {
        (local.gateway_label[var.environment])       = "allowed"
        "pod-security.kubernetes.io/enforce"         = "restricted"
        "pod-security.kubernetes.io/enforce-version" = "latest"
      },
      var.namespace_labels,
    )
    annotations = {
      "argocd.argoproj.io/sync-options" = "Prune=false,Delete=false"
      "argocd.argoproj.io/sync-wave"    = "-1"
    }
  }

  lifecycle {
    # It takes the streams and the outputs of jobs with it.
    prevent_destroy = true
    # Argo CD notes here what tracks the object.
    ignore_changes = [metadata[0].annotations["argocd.argoproj.io/tracking-id"]]

    precondition {
      condition     = var.installer != "argocd" || local.namespace == local.namespaces[var.environment]
      error_message = "Argo CD installs the overlay, which has its own namespace: leave namespace out."
    }
  }
}
