# As k8s/argocd has it for the environment. Its AppProject is there before: kubectl apply -k k8s/argocd, or the project's file.
resource "kubernetes_manifest" "application" {
  count = var.installer == "argocd" ? 1 : 0

  manifest = {
    apiVersion = "argoproj.io/v1alpha1"
    kind       = "Application"
    metadata = {
      name      = "agentforge-${var.environment}"
      namespace = var.argocd_namespace
    }
    spec = {
      project = "agentforge-${var.environment}"
      source = {
        repoURL        = var.repository
        targetRevision = var.revision
        path           = "overlays/${var.environment}"
        kustomize = {
          patches = concat(
            [{
              target = { kind = "Deployment", name = "orchestrator" }
              patch = yamlencode({
                apiVersion = "apps/v1"
                kind       = "Deployment"
                metadata   = { name = "orchestrator" }
                spec = { template = { spec = { containers = [{
                  name = "orchestrator"
                  env  = [{ name = "POSTGRES_HOST", value = var.database.host }]
                }] } } }
              })
            }],
            [for name, annotations in var.service_account_annotations : {
              target = { kind = "ServiceAccount", name = name }
              patch = yamlencode({
                apiVersion = "v1"
                kind       = "ServiceAccount"
                metadata   = { name = name, annotations = annotations }
              })
            }],
          )
        }
      }
      destination = {
        server    = "https://kubernetes.default.svc"
        namespace = local.namespace
      }
      revisionHistoryLimit = 10
      ignoreDifferences = [{
        group        = "apps"
        kind         = "Deployment"
        jsonPointers = ["/spec/replicas"]
      }]
      syncPolicy = {
        automated   = { prune = true, selfHeal = true }
        syncOptions = ["RespectIgnoreDifferences=true", "ServerSideApply=true", "PruneLast=true"]
        retry = {
          limit   = 5
          backoff = { duration = "10s", factor = 2, maxDuration = "3m" }
        }
      }
    }
  }

  depends_on = [kubernetes_namespace_v1.this, kubernetes_manifest.secret]
}
